package app

// ContainerApp is Microsoft.App/containerApps. Blocks that are not set are written as null, as Azure does.
type ContainerApp struct {
	Tracked
	Properties AppProperties `json:"properties"`
	Identity   *Identity     `json:"identity"`
}

// Identity is the managed identity of a resource. There are none here.
type Identity struct {
	Type                   string           `json:"type"`
	PrincipalID            string           `json:"principalId,omitempty" arm:"ro"`
	TenantID               string           `json:"tenantId,omitempty" arm:"ro"`
	UserAssignedIdentities map[string]unset `json:"userAssignedIdentities,omitempty"`
}

// AppProperties has the properties of an app.
type AppProperties struct {
	ProvisioningState          string         `json:"provisioningState" arm:"ro"`
	RunningStatus              string         `json:"runningStatus" arm:"ro"`
	ManagedEnvironmentID       string         `json:"managedEnvironmentId"`
	EnvironmentID              string         `json:"environmentId"`
	WorkloadProfileName        *string        `json:"workloadProfileName"`
	OutboundIPAddresses        []string       `json:"outboundIpAddresses" arm:"ro"`
	LatestRevisionName         string         `json:"latestRevisionName" arm:"ro"`
	LatestReadyRevisionName    string         `json:"latestReadyRevisionName" arm:"ro"`
	LatestRevisionFqdn         string         `json:"latestRevisionFqdn" arm:"ro"`
	CustomDomainVerificationID string         `json:"customDomainVerificationId" arm:"ro"`
	ProvisioningError          string         `json:"provisioningError,omitempty" arm:"ro"` // as in a revision
	DeploymentErrors           string         `json:"deploymentErrors,omitempty" arm:"ro"`  // the same, where new clients look
	Configuration              *Configuration `json:"configuration"`
	Template                   *Template      `json:"template"`
	EventStreamEndpoint        string         `json:"eventStreamEndpoint" arm:"ro"`
	PatchingMode               string         `json:"patchingMode,omitempty" arm:"ro"` // of Azure's machines
}

// Configuration applies to all revisions of an app.
type Configuration struct {
	Secrets              []Secret   `json:"secrets"`
	ActiveRevisionsMode  *string    `json:"activeRevisionsMode"`
	Ingress              *Ingress   `json:"ingress"`
	Registries           []Registry `json:"registries"`
	Dapr                 *Dapr      `json:"dapr"`
	MaxInactiveRevisions *int       `json:"maxInactiveRevisions"`
	IdentitySettings     []unset    `json:"identitySettings,omitempty"`
}

// Secret is a secret of an app. Only the answer of listSecrets has its value.
type Secret struct {
	Name  *string `json:"name"`
	Value *string `json:"value,omitempty" arm:"hidden"`
}

// Registry is a registry with its login. The password is a secret of the app.
type Registry struct {
	Server            *string `json:"server"`
	Username          *string `json:"username"`
	PasswordSecretRef *string `json:"passwordSecretRef"`
	Identity          string  `json:"identity"` // "", as Azure answers when there is none
}

// unset is the element type of lists and maps that must be empty.
type unset struct{}

// Dapr has the settings of a Dapr sidecar. There are none here.
type Dapr struct {
	Enabled            *bool   `json:"enabled"`
	AppID              *string `json:"appId,omitempty"`
	AppPort            *int    `json:"appPort,omitempty"`
	AppProtocol        *string `json:"appProtocol,omitempty"`
	EnableAPILogging   *bool   `json:"enableApiLogging,omitempty"`
	HTTPMaxRequestSize *int    `json:"httpMaxRequestSize,omitempty"`
	HTTPReadBufferSize *int    `json:"httpReadBufferSize,omitempty"`
	LogLevel           *string `json:"logLevel,omitempty"`
}

// Ingress says how requests reach an app.
type Ingress struct {
	Fqdn                   string              `json:"fqdn" arm:"ro"`
	External               *bool               `json:"external"`
	TargetPort             *int                `json:"targetPort"`
	ExposedPort            *int                `json:"exposedPort"`
	Transport              *string             `json:"transport"`
	TargetPortHTTPScheme   *string             `json:"targetPortHttpScheme,omitempty"`
	Traffic                []TrafficWeight     `json:"traffic"`
	CustomDomains          []CustomDomainOfApp `json:"customDomains"`
	AllowInsecure          *bool               `json:"allowInsecure"`
	IPSecurityRestrictions []IPRule            `json:"ipSecurityRestrictions"`
	StickySessions         *StickySessions     `json:"stickySessions,omitempty"`
	ClientCertificateMode  *string             `json:"clientCertificateMode,omitempty"`
	CorsPolicy             *CorsPolicy         `json:"corsPolicy,omitempty"`
	AdditionalPortMappings []PortMapping       `json:"additionalPortMappings,omitempty"`
}

// PortMapping is an additional TCP port.
type PortMapping struct {
	External    *bool `json:"external"`
	TargetPort  *int  `json:"targetPort"`
	ExposedPort *int  `json:"exposedPort,omitempty"`
}

// IPRule allows or denies a range of client addresses.
type IPRule struct {
	Name           *string `json:"name"`
	Description    *string `json:"description,omitempty"`
	IPAddressRange *string `json:"ipAddressRange"`
	Action         *string `json:"action"`
}

// CorsPolicy says which pages of other origins can call an app from a browser.
type CorsPolicy struct {
	AllowedOrigins   []string `json:"allowedOrigins"`
	AllowedMethods   []string `json:"allowedMethods,omitempty"`
	AllowedHeaders   []string `json:"allowedHeaders,omitempty"`
	ExposeHeaders    []string `json:"exposeHeaders,omitempty"`
	MaxAge           *int     `json:"maxAge,omitempty"`
	AllowCredentials *bool    `json:"allowCredentials,omitempty"`
}

// TrafficWeight is the share of requests that a revision gets.
type TrafficWeight struct {
	RevisionName   *string `json:"revisionName,omitempty"`
	Weight         *int    `json:"weight,omitempty"`
	Label          *string `json:"label,omitempty"`
	LatestRevision *bool   `json:"latestRevision,omitempty"`
}

// StickySessions says whether all requests of a client go to the same replica.
type StickySessions struct {
	Affinity *string `json:"affinity"`
}

// Template describes the replicas of a revision.
type Template struct {
	RevisionSuffix                *string         `json:"revisionSuffix"`
	TerminationGracePeriodSeconds *int            `json:"terminationGracePeriodSeconds"`
	Containers                    []Container     `json:"containers"`
	InitContainers                []InitContainer `json:"initContainers"`
	Scale                         *Scale          `json:"scale"`
	Volumes                       []Volume        `json:"volumes"`
	ServiceBinds                  []unset         `json:"serviceBinds"`
}

// Container is one container of a replica.
type Container struct {
	Image        *string       `json:"image"`
	ImageType    *string       `json:"imageType,omitempty"`
	Name         *string       `json:"name"`
	Command      []string      `json:"command,omitempty"`
	Args         []string      `json:"args,omitempty"`
	Env          []EnvVar      `json:"env,omitempty"`
	Resources    *Resources    `json:"resources"`
	Probes       []Probe       `json:"probes"`
	VolumeMounts []VolumeMount `json:"volumeMounts,omitempty"`
}

// InitContainer is a container that ends before the others start.
type InitContainer struct {
	Image        *string       `json:"image"`
	ImageType    *string       `json:"imageType,omitempty"`
	Name         *string       `json:"name"`
	Command      []string      `json:"command,omitempty"`
	Args         []string      `json:"args,omitempty"`
	Env          []EnvVar      `json:"env,omitempty"`
	Resources    *Resources    `json:"resources"`
	VolumeMounts []VolumeMount `json:"volumeMounts,omitempty"`
}

// Volume is a folder that containers can mount.
type Volume struct {
	Name         *string        `json:"name"`
	StorageType  *string        `json:"storageType"`
	StorageName  *string        `json:"storageName,omitempty"`
	MountOptions *string        `json:"mountOptions,omitempty"`
	Secrets      []VolumeSecret `json:"secrets,omitempty"`
}

// VolumeSecret is a file with a secret. Without a path the file has the name of the secret.
type VolumeSecret struct {
	SecretRef *string `json:"secretRef"`
	Path      *string `json:"path,omitempty"`
}

// VolumeMount mounts a volume in a container.
type VolumeMount struct {
	VolumeName *string `json:"volumeName"`
	MountPath  *string `json:"mountPath"`
	SubPath    *string `json:"subPath,omitempty"`
}

// EnvVar is an environment variable of a container.
type EnvVar struct {
	Name      *string `json:"name"`
	Value     *string `json:"value,omitempty"`
	SecretRef *string `json:"secretRef,omitempty"`
}

// Resources are a container's limits.
type Resources struct {
	CPU              *float64 `json:"cpu"`
	Memory           *string  `json:"memory"`
	EphemeralStorage string   `json:"ephemeralStorage" arm:"ro"`
}

// Probe checks a container.
type Probe struct {
	Type                          *string    `json:"type"`
	FailureThreshold              *int       `json:"failureThreshold,omitempty"`
	HTTPGet                       *HTTPGet   `json:"httpGet,omitempty"`
	InitialDelaySeconds           *int       `json:"initialDelaySeconds,omitempty"`
	PeriodSeconds                 *int       `json:"periodSeconds,omitempty"`
	SuccessThreshold              *int       `json:"successThreshold,omitempty"`
	TCPSocket                     *TCPSocket `json:"tcpSocket,omitempty"`
	TimeoutSeconds                *int       `json:"timeoutSeconds,omitempty"`
	TerminationGracePeriodSeconds *int       `json:"terminationGracePeriodSeconds,omitempty"`
}

// HTTPGet is a probe that sends an HTTP request.
type HTTPGet struct {
	Path        *string  `json:"path,omitempty"`
	Port        *int     `json:"port"`
	Scheme      *string  `json:"scheme,omitempty"`
	Host        *string  `json:"host,omitempty"`
	HTTPHeaders []Header `json:"httpHeaders,omitempty"`
}

// Header is a header of the request of a probe.
type Header struct {
	Name  *string `json:"name"`
	Value *string `json:"value"`
}

// TCPSocket is a probe that opens a connection.
type TCPSocket struct {
	Port *int `json:"port"`
}

// Scale bounds the number of replicas.
type Scale struct {
	MinReplicas     *int        `json:"minReplicas"`
	MaxReplicas     *int        `json:"maxReplicas"`
	CooldownPeriod  *int        `json:"cooldownPeriod"`
	PollingInterval *int        `json:"pollingInterval"`
	Rules           []ScaleRule `json:"rules"`
}

// ScaleRule is a rule by which replicas are added and removed.
type ScaleRule struct {
	Name       *string     `json:"name"`
	HTTP       *MetricRule `json:"http,omitempty"`
	TCP        *MetricRule `json:"tcp,omitempty"`
	Custom     *CustomRule `json:"custom,omitempty"`
	AzureQueue *QueueRule  `json:"azureQueue,omitempty"`
}

// MetricRule scales by requests or connections.
type MetricRule struct {
	Metadata map[string]string `json:"metadata"`
	Auth     []RuleAuth        `json:"auth,omitempty"`
	Identity *string           `json:"identity,omitempty"`
}

// CustomRule scales by what a KEDA scaler measures.
type CustomRule struct {
	Type     *string           `json:"type"`
	Metadata map[string]string `json:"metadata"`
	Auth     []RuleAuth        `json:"auth,omitempty"`
	Identity *string           `json:"identity,omitempty"`
}

// QueueRule scales by the length of a storage queue.
type QueueRule struct {
	AccountName *string    `json:"accountName,omitempty"`
	QueueName   *string    `json:"queueName,omitempty"`
	QueueLength *int       `json:"queueLength,omitempty"`
	Auth        []RuleAuth `json:"auth,omitempty"`
	Identity    *string    `json:"identity,omitempty"`
}

// RuleAuth passes a secret to a scaler.
type RuleAuth struct {
	SecretRef        *string `json:"secretRef"`
	TriggerParameter *string `json:"triggerParameter"`
}
