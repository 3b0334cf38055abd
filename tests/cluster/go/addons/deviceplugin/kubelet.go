package main

import (
	"context"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const socketName = "evenkeel-gpu.sock"

// serveForever registers, and registers again whenever a kubelet starts: a starting kubelet empties the folder of
// sockets, so the loss of ours is the sign.
func serveForever(p *plugin) {
	socket := filepath.Join(api.DevicePluginPath, socketName)
	for {
		if err := serve(p, socket); err != nil {
			log.Print(err)
			time.Sleep(time.Second)
		}
	}
}

func serve(p *plugin, socket string) error {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	if err := register(); err != nil {
		return err
	}
	log.Printf("registered %d devices as %s", len(p.ids), resource)
	for {
		time.Sleep(500 * time.Millisecond)
		if _, err := os.Stat(socket); err != nil {
			log.Print("the kubelet has restarted")
			return nil
		}
	}
}

func register() error {
	connection, err := grpc.NewClient("unix://"+api.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: socketName, ResourceName: resource, Options: &api.DevicePluginOptions{},
	})
	return err
}
