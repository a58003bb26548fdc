package resource

import (
	"fmt"
	"regexp"
)

// AccessMode says what replicas may do in a storage.
type AccessMode string

const (
	ReadOnly  AccessMode = "ReadOnly"
	ReadWrite AccessMode = "ReadWrite"
)

// Storage is a folder that apps of an environment share.
type Storage struct {
	Meta
	// Kind is AzureFile or NfsAzureFile: what volumes of it are called.
	Kind   VolumeType
	Access AccessMode
	Share  string
	// Account is an AzureFile storage's, Server an NfsAzureFile storage's. A folder of this machine needs neither.
	Account string `json:",omitempty"`
	Server  string `json:",omitempty"`
	// Key is what a user sent of an account's; "" keeps the one that there is. It is not kept.
	Key Secret `json:"-"`
	// Sealed is the key as it is kept.
	Sealed []byte `json:",omitempty"`
}

// Purpose is what the key of a storage is sealed for: it opens for no other.
func (s Storage) Purpose() string { return s.ID.Key() + "/accountKey" }

// Moved says what of a storage cannot be changed and would be: nothing but the key can, as in Azure.
func (s Storage) Moved(wanted Storage) (field string, was, want string) {
	prefix := "properties.azureFile."
	if s.Kind == NfsAzureFile {
		prefix = "properties.nfsAzureFile."
	}
	for _, f := range []struct{ field, was, want string }{
		{"properties", string(s.Kind), string(wanted.Kind)},
		{prefix + "accountName", s.Account, wanted.Account},
		{prefix + "server", s.Server, wanted.Server},
		{prefix + "shareName", s.Share, wanted.Share},
		{prefix + "accessMode", string(s.Access), string(wanted.Access)},
	} {
		if f.was != f.want {
			return f.field, f.was, f.want
		}
	}
	return "", "", ""
}

const codeStorage = "ManagedEnvironmentStorageInvalidValue"

var (
	// storageName is Terraform's rule for azurerm_container_app_environment_storage, without "--".
	storageName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)
	// Names of storage accounts and shares (learn.microsoft.com/azure/storage, "Storage account names" and "Naming and
	// referencing shares, directories, files, and metadata").
	accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)
	shareName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])$`)
)

// ValidateStorage checks a storage.
func ValidateStorage(s Storage) []Fault {
	var faults []Fault
	bad := func(field, want, got string) {
		faults = append(faults, Fault{codeStorage, field, fmt.Sprintf("want %s, got %q", want, got)})
	}
	if !storageName.MatchString(s.ID.Base()) {
		bad("name", "1 to 32 lower-case letters, digits and '-', starting with a letter and ending with a letter or digit", s.ID.Base())
	}
	at := "properties.azureFile."
	if s.Kind == NfsAzureFile {
		at = "properties.nfsAzureFile."
		if s.Server == "" || len(s.Server) > 253 || !plainPath(s.Server) {
			bad(at+"server", "the address of a server", s.Server)
		}
		// There it is the path of the export, "/account/share".
		if s.Share == "" || !plainPath(s.Share) {
			bad(at+"shareName", "the path of a share", s.Share)
		}
	} else {
		if !accountName.MatchString(s.Account) {
			bad(at+"accountName", "3 to 24 lower-case letters and digits", s.Account)
		}
		if !shareName.MatchString(s.Share) {
			bad(at+"shareName", "3 to 63 lower-case letters, digits and '-'", s.Share)
		}
	}
	if s.Access == "" {
		bad(at+"accessMode", "ReadOnly or ReadWrite", "")
	}
	return faults
}
