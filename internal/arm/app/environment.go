package app

// Environment is Microsoft.App/managedEnvironments.
type Environment struct {
	Tracked
	Properties EnvironmentProperties `json:"properties"`
	Sku        *Sku                  `json:"sku,omitempty"`
	Identity   *Identity             `json:"identity,omitempty"`
}

// Sku was the pricing plan of an environment, before there were workload profiles.
type Sku struct {
	Name *string `json:"name"`
}

// EnvironmentProperties has the properties of an environment.
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

// EnvironmentIngress has the settings that Azure calls premium ingress.
type EnvironmentIngress struct {
	WorkloadProfileName *string `json:"workloadProfileName,omitempty"`
	RequestIdleTimeout  *int    `json:"requestIdleTimeout,omitempty"` // minutes
	HeaderCountLimit    *int    `json:"headerCountLimit,omitempty"`
}

// AppLogs says where Azure sends logs.
type AppLogs struct {
	Destination               *string       `json:"destination"`
	LogAnalyticsConfiguration *LogAnalytics `json:"logAnalyticsConfiguration,omitempty"`
}

// LogAnalytics names a workspace. Its key is not stored.
type LogAnalytics struct {
	CustomerID         *string `json:"customerId,omitempty"`
	SharedKey          *string `json:"sharedKey,omitempty" arm:"secret"`
	DynamicJSONColumns *bool   `json:"dynamicJsonColumns,omitempty"`
}

// Vnet names the virtual network of an environment in Azure.
type Vnet struct {
	Internal               *bool   `json:"internal,omitempty"`
	InfrastructureSubnetID *string `json:"infrastructureSubnetId,omitempty"`
	RuntimeSubnetID        *string `json:"runtimeSubnetId,omitempty"`
	DockerBridgeCidr       *string `json:"dockerBridgeCidr,omitempty"`
	PlatformReservedCidr   *string `json:"platformReservedCidr,omitempty"`
	PlatformReservedDNSIP  *string `json:"platformReservedDnsIP,omitempty"`
}

// CustomDomain has the value by which Azure verifies a custom domain.
type CustomDomain struct {
	CustomDomainVerificationID string `json:"customDomainVerificationId" arm:"ro"`
	ExpirationDate             string `json:"expirationDate,omitempty" arm:"ro"`
	ExpirationDateUTC          string `json:"expirationDateUtc,omitempty" arm:"ro"`
	Thumbprint                 string `json:"thumbprint,omitempty" arm:"ro"`
	SubjectName                string `json:"subjectName,omitempty" arm:"ro"`
}

// Version is the version of a component of Azure.
type Version struct {
	Version string `json:"version" arm:"ro"`
}

// PeerAuthentication is the setting for mutual TLS between apps, which is always off here.
type PeerAuthentication struct {
	MTLS *Switch `json:"mtls"`
}

// PeerTraffic is the setting for encryption between apps, which is always off here.
type PeerTraffic struct {
	Encryption *Switch `json:"encryption"`
}

// Switch is on or off.
type Switch struct {
	Enabled *bool `json:"enabled"`
}
