{{/*
What the operator may do, and nowhere else is it said. A test compares this list with the API server's audit log:
what is used is granted, what is granted is used.

  watched  in every namespace that is served
  cluster  what has no namespace; cluster-wide installs only
  own      in the operator's own namespace

create stands beside patch because a server-side apply of an object that does not exist is a creation. Services and
budgets are never deleted: they go with their ModelDeployment. Pods are never made or removed: ReplicaSets and Jobs do
that; patch marks those that go first when a ReplicaSet shrinks. A ConfigMap is read by its name, and holds what the
decisions about one ModelDeployment remember. A CronJob is read where a ModelDeployment names it, as the template of the
Job that retrains its model. Secrets are named in pods and are out of reach; with the feedback service,
one per ModelDeployment is created, and none is ever read.
*/}}
{{- define "evenkeel.permissions" -}}
watched:
- apiGroups: [evenkeel.dev]
  resources: [modeldeployments]
  verbs: [list, watch]
- apiGroups: [evenkeel.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [controllerrevisions, replicasets]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch, create]
{{- if .Values.feedback.enabled }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end }}
cluster:
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
own:
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "evenkeel.leaseName" . }}]
  verbs: [get, update]
{{- end -}}

{{/* What the feedback service may do: ask who somebody is and what they may do, and what ModelDeployments are called. */}}
{{- define "evenkeel.feedbackPermissions" -}}
cluster:
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
watched:
- apiGroups: [evenkeel.dev]
  resources: [modeldeployments]
  verbs: [list]
{{- end -}}
