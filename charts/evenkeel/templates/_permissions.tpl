{{/*
What the operator may do, and nowhere else is it said. A test compares this list with the API server's audit log.

  watched  in every namespace that is served
  cluster  what has no namespace; cluster-wide installs only
  own      in the operator's own namespace

create stands beside patch because a server-side apply of an object that does not exist is a creation. Secrets can be
created and never read, listed or changed. Pods are never written: ReplicaSets and Jobs do that.
*/}}
{{- define "evenkeel.permissions" -}}
watched:
- apiGroups: [evenkeel.dev]
  resources: [modeldeployments]
  verbs: [get, list, watch]
- apiGroups: [evenkeel.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [controllerrevisions, replicasets]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch, create]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
cluster:
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [modeldeployments.evenkeel.dev]
  verbs: [get]
own:
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "evenkeel.leaseName" . }}]
  verbs: [get, update]
{{- end -}}
