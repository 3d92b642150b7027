{{/* What selects the pods of this release. */}}
{{- define "secformer.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "secformer.labels" -}}
{{ include "secformer.selector" . }}
app.kubernetes.io/part-of: secformer
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The image, by digest: a tag may be moved to another program. */}}
{{- define "secformer.image" -}}
{{ .repository }}@{{ .digest }}
{{- end }}

{{- define "secformer.pod-security" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # Not `Always`, which would open every file of a volume to the group at each start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "secformer.container-security" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "secformer.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "secformer.selector" . | nindent 14 }}
{{- end }}

{{/* Addresses and namespaces of a network policy. Before an empty list, everybody would be let
     in, so the schema wants entries. */}}
{{- define "secformer.blocks" -}}
{{- range . }}
- ipBlock:
    cidr: {{ . }}
{{- end }}
{{- end }}

{{- define "secformer.namespaces" -}}
{{- range . }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- end }}

{{/* The keys of a settings file, in TOML. JSON's strings, numbers and words are TOML's, too. */}}
{{- define "secformer.settings" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}

{{/* The table [tls]: the files that `secformer init` wrote, in a folder. */}}
{{- define "secformer.tls" -}}
[tls]
authority = "{{ .folder }}/authority.pem"
certificate = "{{ .folder }}/{{ .name }}.pem"
key = "{{ .folder }}/{{ .name }}.key"
revoked = "{{ .folder }}/revoked.pem"
{{- end }}

{{- define "secformer.tls-volume" -}}
secret:
  secretName: {{ .secret }}
  defaultMode: 0440
  items:
    {{- range list "authority.pem" (printf "%s.pem" .name) (printf "%s.key" .name) "revoked.pem" }}
    - {key: {{ . }}, path: {{ . }}}
    {{- end }}
{{- end }}

{{/* Probes of a role: alive is not ready, because a role waits for the other roles of its cell. */}}
{{- define "secformer.probes" -}}
startupProbe:   # the first start of a pod compiles the kernels
  httpGet: {path: /healthz, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{/* A claim of one pod. ReadWriteOncePod: two processes must never use one folder. */}}
{{- define "secformer.claim" -}}
metadata:
  name: {{ .name }}
  {{- if not .backup }}
  labels:
    velero.io/exclude-from-backup: "true"   # a restored copy undoes forward secrecy
  {{- end }}
spec:
  accessModes: [ReadWriteOncePod]
  {{- with .volume.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .volume.size }}
{{- end }}

{{/* The Service by which other organisations reach one cell. */}}
{{- define "secformer.service-spec" -}}
type: {{ .Values.service.type }}
{{- if ne .Values.service.type "ClusterIP" }}
externalTrafficPolicy: Local   # keeps the addresses of whoever connects: strangers are told apart by them
{{- end }}
publishNotReadyAddresses: true # a role becomes ready only after the others have reached it
{{- end }}
