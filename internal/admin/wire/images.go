package wire

import "time"

// Image is an image in the server's store. Two names of one manifest are two images that share all their blobs.
type Image struct {
	Name    string    `json:"name"` // as users write it
	Digest  string    `json:"digest"`
	Created time.Time `json:"created"`           // when the name was last set to this manifest
	Size    int64     `json:"size"`              // compressed size of its blobs
	Unique  int64     `json:"unique"`            // size of the blobs that no other image has: what deleting the image frees
	Shared  int64     `json:"shared"`            // size of the blobs that other images have too
	Layers  []Layer   `json:"layers"`            // lowest first; if there are several platforms, one after the other
	Problem string    `json:"problem,omitempty"` // why the image cannot be read or run
}

// Layer is a layer of an image.
type Layer struct {
	Name       string `json:"name,omitempty"` // as in image.yaml, if penstock build made the image
	Digest     string `json:"digest"`
	MediaType  string `json:"mediaType"`
	Size       int64  `json:"size"`
	SharedWith int    `json:"sharedWith"` // number of other images that have it
}

// ImageDetails is an image with its models and the replicas that run it.
type ImageDetails struct {
	Image
	Models   []Model        `json:"models"` // largest first
	Replicas []ImageReplica `json:"replicas"`
}

// Model is what the headers of a model's files contain.
type Model struct {
	Path       string `json:"path"`   // folder, or file if there is only one
	Format     string `json:"format"` // "safetensors", "gguf", "onnx" or "pytorch"
	Files      int    `json:"files"`
	Parameters int64  `json:"parameters"`
	Bytes      int64  `json:"bytes"`             // size of the parameters in memory, in their stored type
	Type       string `json:"type"`              // the type of most of its bytes
	Problem    string `json:"problem,omitempty"` // why some of its files could not be read
	Needs      int64  `json:"needs"`             // memory that a replica needs to serve it
}

// ImageReplica is a replica that runs an image, with the memory that its processes have mapped.
type ImageReplica struct {
	Name     string `json:"name"`
	Revision string `json:"revision"`
	RSS      uint64 `json:"rssBytes"` // all mapped memory
	PSS      uint64 `json:"pssBytes"` // each page divided by the number of processes that have it
}

// PullRequest requests an image from another registry.
type PullRequest struct {
	Image    string `json:"image"` // with its registry's host, as in docker.io/library/nginx:1.27
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// Pull is the progress of a pull.
type Pull struct {
	Image string    `json:"image"`
	Began time.Time `json:"began"`
	Total int64     `json:"total"` // bytes of the image; 0 while it is not known
	Done  int64     `json:"done"`  // bytes received or copied so far
	Here  int64     `json:"here"`  // bytes that were in the store before
	Wire  int64     `json:"wire"`  // bytes received over the network, including what a registry without ranges sent twice
	Blobs int       `json:"blobs"`
	Whole int       `json:"whole"` // blobs that are complete
}

// PullEnd is the last line of a pull's response. It has an Error, or an Image and Moved.
type PullEnd struct {
	Image  *PulledImage `json:"image,omitempty"`
	Moved  *Pull        `json:"moved,omitempty"`
	TookMS int64        `json:"tookMs,omitempty"`
	Error  *Error       `json:"error,omitempty"`
}

// PulledImage is the image for this machine's platform.
type PulledImage struct {
	Name   string      `json:"name"`
	Digest string      `json:"digest"`
	Config ImageConfig `json:"config"`
	Size   int64       `json:"size"` // compressed size of its blobs
}

// ImageConfig is how an image should be run.
type ImageConfig struct {
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Env        []string          `json:"env,omitempty"` // KEY=value
	User       string            `json:"user,omitempty"`
	WorkDir    string            `json:"workdir,omitempty"`
	Ports      []int             `json:"ports,omitempty"` // TCP, ascending
	Labels     map[string]string `json:"labels,omitempty"`
}

// Pruned is what a prune removed, or would remove.
type Pruned struct {
	Images []PrunedImage `json:"images"`
	Bytes  int64         `json:"bytes"` // that no image needs any more
}

// PrunedImage is one name that was removed.
type PrunedImage struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Why    string `json:"why"`
	Bytes  int64  `json:"bytes"` // of the image; other images may share them
}

// Verified is the result of checking every blob.
type Verified struct {
	Blobs    int               `json:"blobs"`
	Bytes    int64             `json:"bytes"`
	Damage   []Damage          `json:"damage"`
	Repaired []string          `json:"repaired"` // images that are complete again
	Left     map[string]string `json:"left"`     // images that are still damaged, and what to do
}

// Damage is a blob that differs from its digest, or is missing.
type Damage struct {
	Digest string   `json:"digest"`
	Fault  string   `json:"fault"`
	Images []string `json:"images"` // images that contain it
}

// Loaded has the names of the images in an archive.
type Loaded struct {
	Images []string `json:"images"`
}
