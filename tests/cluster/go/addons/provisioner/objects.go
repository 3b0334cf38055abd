package main

import "path/filepath"

// The fields of Kubernetes' objects that the provisioner reads and writes.

type list[T any] struct {
	Items []T `json:"items"`
}

type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	UID         string            `json:"uid,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type class struct {
	Metadata    metadata `json:"metadata"`
	Provisioner string   `json:"provisioner"`
}

type claim struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		AccessModes []string `json:"accessModes"`
		ClassName   string   `json:"storageClassName"`
		VolumeName  string   `json:"volumeName"`
		Resources   struct {
			Requests map[string]string `json:"requests"`
		} `json:"resources"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

type reference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

type volume struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Metadata   metadata   `json:"metadata"`
	Spec       volumeSpec `json:"spec"`
	Status     struct {
		Phase string `json:"phase,omitempty"`
	} `json:"status"`
}

type volumeSpec struct {
	AccessModes   []string          `json:"accessModes"`
	Capacity      map[string]string `json:"capacity"`
	ClassName     string            `json:"storageClassName"`
	ReclaimPolicy string            `json:"persistentVolumeReclaimPolicy"`
	ClaimRef      *reference        `json:"claimRef"`
	HostPath      hostPath          `json:"hostPath"`
}

type hostPath struct {
	Path string `json:"path"`
}

func volumeFor(wanted claim, folder string) volume {
	name := "pvc-" + wanted.Metadata.UID
	return volume{
		APIVersion: "v1",
		Kind:       "PersistentVolume",
		Metadata:   metadata{Name: name, Annotations: map[string]string{provisionedBy: provisioner}},
		Spec: volumeSpec{
			AccessModes:   wanted.Spec.AccessModes,
			Capacity:      map[string]string{"storage": wanted.Spec.Resources.Requests["storage"]},
			ClassName:     wanted.Spec.ClassName,
			ReclaimPolicy: "Delete",
			ClaimRef: &reference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: wanted.Metadata.Namespace, Name: wanted.Metadata.Name, UID: wanted.Metadata.UID,
			},
			HostPath: hostPath{Path: filepath.Join(folder, name)},
		},
	}
}
