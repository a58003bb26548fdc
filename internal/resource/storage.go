package resource

import (
	"fmt"
	"regexp"
)

// AccessMode says whether replicas can write to a storage.
type AccessMode string

const (
	ReadOnly  AccessMode = "ReadOnly"
	ReadWrite AccessMode = "ReadWrite"
)

// Storage is a folder that the apps of an environment share.
type Storage struct {
	Meta
	// Kind is AzureFile or NfsAzureFile, the type that volumes of this storage have.
	Kind   VolumeType
	Access AccessMode
	Share  string
	// Account belongs to AzureFile storages, Server to NfsAzureFile storages. A folder of this machine needs neither.
	Account string `json:",omitempty"`
	Server  string `json:",omitempty"`
	// Key is the account key that a user sent. "" means that the stored key stays. Key itself is not stored.
	Key Secret `json:"-"`
	// Sealed is the encrypted key, which is what is stored.
	Sealed []byte `json:",omitempty"`
}

// Purpose is the purpose for which the key of a storage is sealed. It cannot be opened for any other purpose.
func (s Storage) Purpose() string { return s.ID.Key() + "/accountKey" }

// Moved names a field in which two versions of a storage differ although it cannot be changed. As in Azure, only the key
// can be changed.
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
	// storageName is the rule of Terraform's azurerm_container_app_environment_storage. "--" is not allowed either.
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
		// Here the share is the path of the export, "/account/share".
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
