// Package wire defines the requests and responses of the server's own API, /penstock/v1. The API and the command line
// share it. docs/api.md describes the endpoints.
//
// Sizes are in bytes, times are RFC 3339 in UTC, and durations are in milliseconds.
package wire

import "time"

// Prefix is the start of every endpoint's path.
const Prefix = "/penstock/v1/"

// The paths of the API. The path of one image is Images, a slash and the image's name.
const (
	StatusPath   = Prefix + "status"
	UsagePath    = Prefix + "usage"
	ScalePath    = Prefix + "scale"
	StandbysPath = Prefix + "standbys"
	BackupPath   = Prefix + "backup"
	ShutdownPath = Prefix + "shutdown"
	ImagesPath   = Prefix + "images"
	PrunePath    = ImagesPath + "/prune"
	VerifyPath   = ImagesPath + "/verify"
	PullsPath    = Prefix + "pulls"
	LayoutPath   = Prefix + "layout"
)

// ErrorResponse is the body of every response with a status of 400 or more.
type ErrorResponse struct {
	Error Error `json:"error"`
}

// Error describes a problem, with a code for programs and a message for people.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// List is a complete list; there are no pages.
type List[T any] struct {
	Value []T `json:"value"`
}

// Status describes the server.
type Status struct {
	Instance  string `json:"instance"` // identifies this server on the machine
	Runtime   string `json:"runtime"`  // "containerd" or "fake"
	Domain    string `json:"domain"`   // parent of the environments' domains
	HTTPHost  string `json:"httpHost"` // address on which the ingress listens for http; "" means all of the machine's
	HTTPPort  int    `json:"httpPort"`
	HTTPSPort int    `json:"httpsPort"`
	TCPHost   string `json:"tcpHost"`  // address on which the external ports of TCP apps are opened
	InFlight  int    `json:"inFlight"` // requests that replicas are processing
	Waiting   int    `json:"waiting"`  // requests that wait for a replica
}

// Usage is the current load of apps and replicas.
type Usage struct {
	At   time.Time  `json:"at"`
	Apps []AppUsage `json:"apps"` // by name
}

// AppUsage is the current load of an app. Its Load is the sum over its replicas.
type AppUsage struct {
	ID      string `json:"id"` // empty for replicas whose app is unknown
	Name    string `json:"name"`
	Waiting int    `json:"waiting"` // requests that wait for a replica
	Wanted  int    `json:"wanted"`  // number of replicas that there should be
	Reason  string `json:"reason"`  // why; if several revisions have replicas, for one of them
	Load
	Replicas []ReplicaUsage `json:"replicas"` // by name
}

// ReplicaUsage is the current load of a replica.
type ReplicaUsage struct {
	Name     string `json:"name"`
	Revision string `json:"revision"`
	State    string `json:"state"`
	Load
}

// Load is the amount of work and the resources in use. Rates and latencies cover the last ten seconds.
type Load struct {
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	ErrorsPerSecond   float64 `json:"errorsPerSecond"`
	P50Ms             float64 `json:"p50Ms"`
	P95Ms             float64 `json:"p95Ms"`
	InFlight          int     `json:"inFlight"`
	CPU               float64 `json:"cpu"` // vCPUs in use
	MemoryBytes       uint64  `json:"memoryBytes"`
	MemoryLimitBytes  uint64  `json:"memoryLimitBytes"`
}
