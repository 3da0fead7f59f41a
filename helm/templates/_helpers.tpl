{{- define "tiled-ingest.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tiled-ingest.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "tiled-ingest.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tiled-ingest.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tiled-ingest.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tiled-ingest.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tiled-ingest.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tiled-ingest.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
tiled-ingest/beamline: {{ .Values.beamline | quote }}
{{- end }}

{{- define "tiled-ingest.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tiled-ingest.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tiled-ingest.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Whether there is exactly one replica, ever: then membership is static. */}}
{{- define "tiled-ingest.isStatic" -}}
{{- if eq (toString .Values.replicaCount) "1" }}true{{ end }}
{{- end }}

{{/* Whether the service holds what has this name for secret: its own expressions, and its own way with spellings. */}}
{{- define "tiled-ingest.isSecret" -}}
{{- $plain := .name | lower | replace "_" "." }}
{{- if and (regexMatch .rule.name $plain) (not (regexMatch .rule.place $plain)) }}true{{ end }}
{{- end }}

{{/* ConfigMap and Deployment are read by many: no secret gets there, and who tries is told where it belongs. */}}
{{- define "tiled-ingest.refuseSecrets" -}}
{{- $rule := (.Files.Get "files/defaults.json" | fromJson).secrets }}
{{- $kafka := default dict .Values.settings.kafka }}
{{- if contains "@" (toString $kafka.bootstrap_servers) }}
{{- fail "settings.kafka.bootstrap_servers: no login in an address: set settings.kafka.properties `sasl.username`, put the password into a Secret, and name that: secrets.kafkaProperties: {sasl.password: {name: ..., key: ...}}" }}
{{- end }}
{{- range $name, $value := $kafka.properties }}
{{- $stem := trimSuffix "_file" $name }}
{{- if include "tiled-ingest.isSecret" (dict "name" $stem "rule" $rule) }}
{{- fail (printf "settings.kafka.properties: %s is a secret: put it into a Secret, and name that: secrets.kafkaProperties: {%s: {name: ..., key: ...}}" $name ($stem | lower | replace "_" ".")) }}
{{- else if regexMatch $rule.login (toString $value) }}
{{- fail (printf "settings.kafka.properties: %s has a login in its address: put it into a Secret, and name that: extraEnv: [{name: TILED_INGEST_KAFKA__PROPERTIES__%s, valueFrom: {secretKeyRef: {name: ..., key: ...}}}]" $name ($name | upper | replace "." "_")) }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if .value }}
{{- if and (hasPrefix "TILED_INGEST_" .name) (not (hasSuffix "_FILE" .name)) }}
{{- fail (printf "extraEnv: %s is a setting: it goes under `settings`, a secret under `secrets`, or by valueFrom" .name) }}
{{- else if or (include "tiled-ingest.isSecret" (dict "name" .name "rule" $rule)) (regexMatch $rule.login (toString .value)) }}
{{- fail (printf "extraEnv: %s has a secret in it: put it into a Secret, and name that: {name: %s, valueFrom: {secretKeyRef: {name: ..., key: ...}}}" .name .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the service is given, as YAML: the values' settings, and what the chart knows better. */}}
{{- define "tiled-ingest.settings" -}}
{{- $kafka := deepCopy (default dict .Values.settings.kafka) }}
{{- $tiled := deepCopy (default dict .Values.settings.tiled) }}
{{- $named := dict "group_id" (printf "%s-tiled-ingest" .Values.beamline) "topics" (list (printf "%s.bluesky.runengine.documents" .Values.beamline)) }}
{{- if include "tiled-ingest.isStatic" . }}
{{- $_ := set $named "instance_id" (printf "%s-0" (include "tiled-ingest.fullname" .)) }}
{{- else if $kafka.instance_id }}
{{- fail "settings.kafka.instance_id: is one pod's name; leave it out unless replicaCount is 1" }}
{{- end }}
{{- $kafka = merge $kafka $named }}
{{- $properties := default dict $kafka.properties }}
{{- range $property, $file := .Values.secrets.kafkaProperties }}
{{- $_ := set $properties (printf "%s_file" $property) (include "tiled-ingest.secretPath" $file) }}
{{- end }}
{{- range $property, $file := .Values.secrets.kafkaFiles }}
{{- $_ := set $properties $property (include "tiled-ingest.secretPath" $file) }}
{{- end }}
{{- if $properties }}
{{- $_ := set $kafka "properties" $properties }}
{{- end }}
{{- with .Values.secrets.tiledApiKey }}
{{- $_ := set $tiled "api_key_file" (include "tiled-ingest.secretPath" .) }}
{{- end }}
{{- $own := dict "beamline" .Values.beamline "kafka" $kafka "tiled" $tiled }}
{{- toYaml (merge $own (omit .Values.settings "kafka" "tiled")) }}
{{- end }}

{{- define "tiled-ingest.secretPath" -}}
/etc/tiled-ingest/secrets/{{ ternary "configmap" "secret" (default false .configMap) }}-{{ .name }}/{{ .key }}
{{- end }}

{{/* Every file of `secrets`, as one list. */}}
{{- define "tiled-ingest.secretFiles" -}}
{{- $files := list }}
{{- with .Values.secrets.tiledApiKey }}{{ $files = append $files . }}{{ end }}
{{- range $_, $file := .Values.secrets.kafkaProperties }}{{ $files = append $files $file }}{{ end }}
{{- range $_, $file := .Values.secrets.kafkaFiles }}{{ $files = append $files $file }}{{ end }}
{{- toYaml (dict "files" (uniq $files)) }}
{{- end }}

{{/* A number of the settings, or the service's own default for it. */}}
{{- define "tiled-ingest.limit" -}}
{{- $defaults := .root.Files.Get "files/defaults.json" | fromJson }}
{{- $group := default dict (get .root.Values.settings .group) }}
{{- default (get (get $defaults .group) .name) (get $group .name) }}
{{- end }}

{{- define "tiled-ingest.port" -}}
{{- include "tiled-ingest.limit" (dict "root" . "group" "http" "name" "port") }}
{{- end }}

{{/* Drain, then commit, then some time to close: a pod that is killed earlier loses nothing, but its successor must rebuild. */}}
{{- define "tiled-ingest.gracePeriod" -}}
{{- $drain := include "tiled-ingest.limit" (dict "root" . "group" "limits" "name" "drain_s_max") | float64 }}
{{- $commit := include "tiled-ingest.limit" (dict "root" . "group" "limits" "name" "commit_s_max") | float64 }}
{{- add (ceil (addf $drain $commit) | int) .Values.terminationMarginSeconds }}
{{- end }}

{{/* What the service's pod and the test's pod have in common. */}}
{{- define "tiled-ingest.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
serviceAccountName: {{ include "tiled-ingest.serviceAccountName" . }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: settings
    configMap:
      name: {{ include "tiled-ingest.fullname" . }}
  - name: tmp
    emptyDir:
      sizeLimit: {{ .Values.tmpSizeLimit }}
  {{- with (include "tiled-ingest.secretFiles" . | fromYaml).files }}
  - name: secrets
    projected:
      defaultMode: 0440
      sources:
        {{- range . }}
        - {{ ternary "configMap" "secret" (default false .configMap) }}:
            name: {{ .name }}
            items:
              - key: {{ .key }}
                path: {{ ternary "configmap" "secret" (default false .configMap) }}-{{ .name }}/{{ .key }}
        {{- end }}
  {{- end }}
  {{- range .Values.detectorMounts }}
  - name: {{ .name }}
    {{- toYaml .volume | nindent 4 }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "tiled-ingest.containerBasics" -}}
image: {{ include "tiled-ingest.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
env:
  - name: TILED_INGEST_CONFIG
    value: /etc/tiled-ingest/settings/settings.yaml
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - name: settings
    mountPath: /etc/tiled-ingest/settings
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- if (include "tiled-ingest.secretFiles" . | fromYaml).files }}
  - name: secrets
    mountPath: /etc/tiled-ingest/secrets
    readOnly: true
  {{- end }}
  {{- range .Values.detectorMounts }}
  - name: {{ .name }}
    mountPath: {{ .mountPath }}
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
