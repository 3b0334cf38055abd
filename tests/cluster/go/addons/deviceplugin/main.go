// A kubelet device plugin that offers GPUs which are not there.
//
// The kubelet counts, allocates and reports them as it does NVIDIA's: capacity and allocatable of nvidia.com/gpu, one
// owner per device, a device that turns unhealthy leaves allocatable. A container gets the ids it was given in
// NVIDIA_VISIBLE_DEVICES. Which devices are unhealthy is read from an annotation of the node, so that a test needs
// nothing but the API server to break one.
package main

import (
	"flag"
	"log"
	"os"
	"strings"
	"time"

	"evenkeel.test/addons/kubeapi"
)

const (
	resource            = "nvidia.com/gpu"
	unhealthyAnnotation = "evenkeel.test/unhealthy-gpus" // comma-separated ids, or "all"
)

func main() {
	count := flag.Int("gpus", 4, "how many GPUs the node offers")
	flag.Parse()
	node := os.Getenv("NODE_NAME")
	client, err := kubeapi.InCluster()
	if err != nil {
		log.Fatal(err)
	}
	plugin := newPlugin(deviceIDs(*count))
	go serveForever(plugin)
	for ; ; time.Sleep(time.Second) {
		unhealthy, err := unhealthyDevices(client, node)
		if err != nil {
			log.Print(err) // keep the last state: not knowing is not a change of health
			continue
		}
		plugin.setUnhealthy(unhealthy)
	}
}

func unhealthyDevices(client *kubeapi.Client, node string) (map[string]bool, error) {
	var object struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := client.Do("GET", "/api/v1/nodes/"+node, nil, &object); err != nil {
		return nil, err
	}
	unhealthy := map[string]bool{}
	for _, id := range strings.Split(object.Metadata.Annotations[unhealthyAnnotation], ",") {
		if id = strings.TrimSpace(id); id != "" {
			unhealthy[id] = true
		}
	}
	return unhealthy, nil
}
