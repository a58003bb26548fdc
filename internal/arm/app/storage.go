package app

import (
	"fmt"
	"strings"

	"penstock/internal/resource"
)

// Storage is Microsoft.App/managedEnvironments/storages.
type Storage struct {
	ID         string      `json:"id" arm:"ro"`
	Name       string      `json:"name"`
	Type       string      `json:"type" arm:"ro"`
	SystemData *SystemData `json:"systemData,omitempty" arm:"ro"`
	AddedByAz
	Properties StorageProperties `json:"properties"`
}

// StorageProperties has the properties of a storage. One of the two is set.
type StorageProperties struct {
	ProvisioningState string        `json:"provisioningState" arm:"ro"`
	AzureFile         *AzureFile    `json:"azureFile,omitempty"`
	NfsAzureFile      *NfsAzureFile `json:"nfsAzureFile,omitempty"`
}

// AzureFile names a share that is mounted with SMB. Answers never contain its key.
type AzureFile struct {
	AccountName *string `json:"accountName"`
	AccountKey  *string `json:"accountKey,omitempty" arm:"hidden"`
	AccessMode  *string `json:"accessMode"`
	ShareName   *string `json:"shareName"`
}

// NfsAzureFile names a share that is mounted with NFS.
type NfsAzureFile struct {
	Server     *string `json:"server"`
	AccessMode *string `json:"accessMode"`
	ShareName  *string `json:"shareName"`
}

func storageFields() []Field {
	fields := []Field{
		refused("properties.azureFile.accountKeyVaultProperties", "Key Vault is not supported"),
		refused("properties.azureFile.identity", "managed identities are not supported, because nothing issues tokens"),
	}
	for i := range fields {
		fields[i].Type = resource.TypeStorage
	}
	return fields
}

// ReadStorage reads the body of a PUT to id, as ReadApp does.
func ReadStorage(id resource.ID, body []byte) (s resource.Storage, notes []string, err error) {
	var w Storage
	r, ok := decodeBody(body, storageFields(), "ManagedEnvironmentStorageInvalidSchema", &w)
	if !ok {
		return s, nil, r.err()
	}
	if w.Name != "" && !strings.EqualFold(w.Name, id.Base()) {
		r.add(resource.Fault{Code: codeBody, Field: "name", Message: fmt.Sprintf("want %q as in the address, got %q", id.Base(), w.Name)})
	}
	s.ID = id
	p := w.Properties
	if (p.AzureFile == nil) == (p.NfsAzureFile == nil) {
		r.add(resource.Fault{Code: codeValue, Field: "properties", Message: "want one of azureFile and nfsAzureFile"})
		return s, nil, r.err()
	}
	if f := p.AzureFile; f != nil {
		s.Kind, s.Account, s.Share = resource.AzureFile, or(f.AccountName, ""), or(f.ShareName, "")
		s.Access = enum(r, "properties.azureFile.accessMode", f.AccessMode, "", resource.ReadOnly, resource.ReadWrite)
		s.Key = resource.Secret(or(f.AccountKey, ""))
	}
	if f := p.NfsAzureFile; f != nil {
		s.Kind, s.Server, s.Share = resource.NfsAzureFile, or(f.Server, ""), or(f.ShareName, "")
		s.Access = enum(r, "properties.nfsAzureFile.accessMode", f.AccessMode, "", resource.ReadOnly, resource.ReadWrite)
	}
	r.add(resource.ValidateStorage(s)...)
	return s, r.notes, r.err()
}

// NewStorage returns the JSON of a storage.
func NewStorage(s resource.Storage) Storage {
	w := Storage{
		ID: s.ID.String(), Name: s.ID.Base(), Type: s.ID.Type, SystemData: newTracked(s.Meta).SystemData,
		Properties: StorageProperties{ProvisioningState: string(resource.Succeeded)},
	}
	access := new(string(s.Access))
	if s.Kind == resource.NfsAzureFile {
		w.Properties.NfsAzureFile = &NfsAzureFile{Server: &s.Server, AccessMode: access, ShareName: &s.Share}
	} else {
		w.Properties.AzureFile = &AzureFile{AccountName: &s.Account, AccessMode: access, ShareName: &s.Share}
	}
	return w
}
