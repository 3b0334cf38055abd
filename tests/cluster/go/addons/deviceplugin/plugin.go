package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// plugin holds the node's devices and tells every listening kubelet when their health changes.
type plugin struct {
	api.UnimplementedDevicePluginServer
	ids []string

	mutex     sync.Mutex
	unhealthy map[string]bool
	changed   chan struct{} // closed and replaced at every change
}

func newPlugin(ids []string) *plugin {
	return &plugin{ids: ids, changed: make(chan struct{})}
}

func deviceIDs(count int) []string {
	ids := make([]string, count)
	for index := range ids {
		ids[index] = fmt.Sprintf("GPU-%d", index)
	}
	return ids
}

func (p *plugin) setUnhealthy(unhealthy map[string]bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if maps.Equal(p.unhealthy, unhealthy) {
		return
	}
	p.unhealthy = unhealthy
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *plugin) devices() ([]*api.Device, <-chan struct{}) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	devices := make([]*api.Device, 0, len(p.ids))
	for _, id := range p.ids {
		health := api.Healthy
		if p.unhealthy[id] || p.unhealthy["all"] {
			health = api.Unhealthy
		}
		devices = append(devices, &api.Device{ID: id, Health: health})
	}
	return devices, p.changed
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	for {
		devices, changed := p.devices()
		if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return response, nil
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}
