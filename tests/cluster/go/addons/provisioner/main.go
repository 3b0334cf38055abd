// A volume provisioner over one folder that every node sees at the same path.
//
// A claim becomes a sub-folder and a hostPath volume without node affinity, so ReadWriteMany works and a pod may be
// moved between nodes. It polls: claims are few and a second is soon enough.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"
	"time"

	"evenkeel.test/addons/kubeapi"
)

const (
	provisioner     = "evenkeel.test/shared-folder"
	provisionedBy   = "pv.kubernetes.io/provisioned-by"
	volumesPath     = "/api/v1/persistentvolumes"
	claimsPath      = "/api/v1/persistentvolumeclaims"
	classesPath     = "/apis/storage.k8s.io/v1/storageclasses"
	everyoneMayUse  = 0o777 // hostPath knows no fsGroup, and the pods do not run as root
	pollingInterval = time.Second
)

func main() {
	folder := flag.String("folder", "", "the folder that all nodes share")
	flag.Parse()
	client, err := kubeapi.InCluster()
	if err != nil {
		log.Fatal(err)
	}
	for ; ; time.Sleep(pollingInterval) {
		if err := provision(client, *folder); err != nil {
			log.Print(err)
		}
		if err := reclaim(client, *folder); err != nil {
			log.Print(err)
		}
	}
}

func provision(client *kubeapi.Client, folder string) error {
	classes, err := ownClasses(client)
	if err != nil {
		return err
	}
	var claims list[claim]
	if err := client.Do("GET", claimsPath, nil, &claims); err != nil {
		return err
	}
	for _, wanted := range claims.Items {
		if wanted.Status.Phase != "Pending" || wanted.Spec.VolumeName != "" || !classes[wanted.Spec.ClassName] {
			continue
		}
		created := volumeFor(wanted, folder)
		if err := makeFolder(created.Spec.HostPath.Path); err != nil {
			return err
		}
		if err := client.Do("POST", volumesPath, created, nil); err != nil {
			return err
		}
		log.Printf("made %s for %s/%s", created.Metadata.Name, wanted.Metadata.Namespace, wanted.Metadata.Name)
	}
	return nil
}

func reclaim(client *kubeapi.Client, folder string) error {
	var volumes list[volume]
	if err := client.Do("GET", volumesPath, nil, &volumes); err != nil {
		return err
	}
	for _, released := range volumes.Items {
		ours := released.Metadata.Annotations[provisionedBy] == provisioner
		if !ours || released.Status.Phase != "Released" || released.Spec.ReclaimPolicy != "Delete" {
			continue
		}
		// The name, not the stored path: a volume edited by hand must not choose what is removed.
		if err := os.RemoveAll(filepath.Join(folder, released.Metadata.Name)); err != nil {
			return err
		}
		if err := client.Do("DELETE", volumesPath+"/"+released.Metadata.Name, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func ownClasses(client *kubeapi.Client) (map[string]bool, error) {
	var classes list[class]
	if err := client.Do("GET", classesPath, nil, &classes); err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, candidate := range classes.Items {
		own[candidate.Metadata.Name] = candidate.Provisioner == provisioner
	}
	return own, nil
}

func makeFolder(path string) error {
	if err := os.MkdirAll(path, everyoneMayUse); err != nil {
		return err
	}
	return os.Chmod(path, everyoneMayUse) // MkdirAll is subject to the umask
}
