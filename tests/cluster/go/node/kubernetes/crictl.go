package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const runtimeSocket = "unix:///run/containerd/containerd.sock"

// crictl answers the few questions that kind asks of a node's runtime (inspecti, images, ps, pods). The real program
// is not published as a Go module.
func crictl(args []string) int {
	answer, err := ask(args)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crictl:", err)
		return 1
	}
	return 0
}

func ask(args []string) (any, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("which of inspecti, images, ps, pods?")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	connection, err := grpc.NewClient(runtimeSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	images, runtime := cri.NewImageServiceClient(connection), cri.NewRuntimeServiceClient(connection)
	switch args[0] {
	case "inspecti":
		return inspectImage(ctx, images, args[len(args)-1])
	case "images":
		return images.ListImages(ctx, &cri.ListImagesRequest{})
	case "ps":
		return runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	case "pods":
		return runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	}
	return nil, fmt.Errorf("%v is not supported here", args)
}

// inspectImage spells the answer as the real program does: kind reads status.id and status.repoTags.
func inspectImage(ctx context.Context, images cri.ImageServiceClient, name string) (any, error) {
	answer, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
	if err != nil {
		return nil, err
	}
	if answer.Image == nil {
		return nil, fmt.Errorf("no such image %q present", name)
	}
	return map[string]any{"status": map[string]any{
		"id": answer.Image.Id, "repoTags": answer.Image.RepoTags, "repoDigests": answer.Image.RepoDigests,
	}}, nil
}
