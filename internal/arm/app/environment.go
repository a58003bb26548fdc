package app

// Environment is Microsoft.App/managedEnvironments.
type Environment struct {
	Tracked
	Properties EnvironmentProperties `json:"properties"`
	Sku        *Sku                  `json:"sku,omitempty"`
	Identity   *Identity             `json:"identity,omitempty"`
}

// Sku was the plan of an environment before workload profiles.
type Sku struct {
	Name *string `json:"name"`
}

// EnvironmentProperties is what is particular to an environment.
type EnvironmentProperties struct {
	ProvisioningState           string              `json:"provisioningState" arm:"ro"`
	DefaultDomain               string              `json:"defaultDomain" arm:"ro"`
	StaticIP                    string              `json:"staticIp" arm:"ro"`
	DeploymentErrors            *string             `json:"deploymentErrors,omitempty" arm:"ro"`
	EventStreamEndpoint         string              `json:"eventStreamEndpoint,omitempty" arm:"ro"`
	AppLogsConfiguration        *AppLogs            `json:"appLogsConfiguration"`
	ZoneRedundant               *bool               `json:"zoneRedundant"`
	VnetConfiguration           *Vnet               `json:"vnetConfiguration"`
	InternalLoadBalancerEnabled *bool               `json:"internalLoadBalancerEnabled,omitempty"`
	InfrastructureResourceGroup *string             `json:"infrastructureResourceGroup,omitempty"`
	WorkloadProfiles            []WorkloadProfile   `json:"workloadProfiles,omitempty"`
	CustomDomainConfiguration   *CustomDomain       `json:"customDomainConfiguration"`
	KedaConfiguration           *Version            `json:"kedaConfiguration,omitempty"`
	DaprConfiguration           *Version            `json:"daprConfiguration,omitempty"`
	PeerAuthentication          *PeerAuthentication `json:"peerAuthentication"`
	PeerTrafficConfiguration    *PeerTraffic        `json:"peerTrafficConfiguration"`
	PublicNetworkAccess         *string             `json:"publicNetworkAccess,omitempty"`
	IngressConfiguration        *EnvironmentIngress `json:"ingressConfiguration,omitempty"`
}

// EnvironmentIngress is what Azure calls premium ingress.
type EnvironmentIngress struct {
	WorkloadProfileName *string `json:"workloadProfileName,omitempty"`
	RequestIdleTimeout  *int    `json:"requestIdleTimeout,omitempty"` // minutes
	HeaderCountLimit    *int    `json:"headerCountLimit,omitempty"`
}

// AppLogs says where Azure would send logs.
type AppLogs struct {
	Destination               *string       `json:"destination"`
	LogAnalyticsConfiguration *LogAnalytics `json:"logAnalyticsConfiguration,omitempty"`
}

// LogAnalytics names a workspace. Its key is not kept.
type LogAnalytics struct {
	CustomerID         *string `json:"customerId,omitempty"`
	SharedKey          *string `json:"sharedKey,omitempty" arm:"secret"`
	DynamicJSONColumns *bool   `json:"dynamicJsonColumns,omitempty"`
}

// Vnet names the virtual network that an environment would be in.
type Vnet struct {
	Internal               *bool   `json:"internal,omitempty"`
	InfrastructureSubnetID *string `json:"infrastructureSubnetId,omitempty"`
	RuntimeSubnetID        *string `json:"runtimeSubnetId,omitempty"`
	DockerBridgeCidr       *string `json:"dockerBridgeCidr,omitempty"`
	PlatformReservedCidr   *string `json:"platformReservedCidr,omitempty"`
	PlatformReservedDNSIP  *string `json:"platformReservedDnsIP,omitempty"`
}

// CustomDomain tells what a domain of one's own would be verified by.
type CustomDomain struct {
	CustomDomainVerificationID string `json:"customDomainVerificationId" arm:"ro"`
	ExpirationDate             string `json:"expirationDate,omitempty" arm:"ro"`
	ExpirationDateUTC          string `json:"expirationDateUtc,omitempty" arm:"ro"`
	Thumbprint                 string `json:"thumbprint,omitempty" arm:"ro"`
	SubjectName                string `json:"subjectName,omitempty" arm:"ro"`
}

// Version is the version of a part that Azure brings along.
type Version struct {
	Version string `json:"version" arm:"ro"`
}

// PeerAuthentication says that apps do not prove to each other who they are.
type PeerAuthentication struct {
	MTLS *Switch `json:"mtls"`
}

// PeerTraffic says that apps speak in the clear to each other.
type PeerTraffic struct {
	Encryption *Switch `json:"encryption"`
}

// Switch is on or off.
type Switch struct {
	Enabled *bool `json:"enabled"`
}
