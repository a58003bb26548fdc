package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"penstock/internal/arm/app"
)

func newStorageCmd(env *Env, s *scope) *cobra.Command {
	cmd := &cobra.Command{Use: "storage", Short: "Manage storages: folders that apps of an environment share"}
	cmd.AddCommand(newStorageListCmd(env, s), newStorageShowCmd(env, s), newStorageSetCmd(env, s), newStorageRemoveCmd(env, s))
	return group(cmd)
}

func newStorageListCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "list ENVIRONMENT",
		Short: "List the storages of an environment",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			docs, err := c.list(cmd.Context(), s.path("managedEnvironments", args[0], "storages"))
			if err != nil {
				return err
			}
			storages, err := decodeAll[storageView](docs)
			if err != nil {
				return err
			}
			return env.show(docs, func(w io.Writer) { showStorages(w, storages) })
		},
	}
}

func newStorageShowCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "show ENVIRONMENT STORAGE",
		Short: "Show a storage",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			doc, err := c.get(cmd.Context(), s.path("managedEnvironments", args[0], "storages", args[1]), version())
			if err != nil {
				return err
			}
			view, err := decode[storageView](doc)
			if err != nil {
				return err
			}
			return env.show(doc, func(w io.Writer) { showStorages(w, []storageView{*view}) })
		},
	}
}

func showStorages(w io.Writer, storages []storageView) {
	var rows [][]string
	for _, v := range storages {
		kind, share := "AzureFile", v.Properties.AzureFile
		if v.Properties.NfsAzureFile != nil {
			kind, share = "NfsAzureFile", v.Properties.NfsAzureFile
		}
		if share == nil {
			share = &shareView{}
		}
		rows = append(rows, []string{v.Name, kind, share.AccessMode, share.AccountName + share.Server, share.ShareName})
	}
	table(w, "NAME TYPE ACCESS ACCOUNT SHARE", rows)
}

// storageOptions have the names of az containerapp env storage set. Only the key is read from a file, because every user
// of a machine can see the arguments of a command.
type storageOptions struct {
	kind, access, account, keyFile, share, server string
}

func newStorageSetCmd(env *Env, s *scope) *cobra.Command {
	o := &storageOptions{}
	cmd := &cobra.Command{
		Use:   "set ENVIRONMENT STORAGE",
		Short: "Create a storage, or change its key",
		Long: `Create a storage, or change its key. Nothing else about a storage can be changed.

A storage is a folder on the server's machine: the folder that the server's setting "storages" assigns to it, or else one
below the data folder. Account, share, server and key are stored so that a manifest works here and in Azure; the folder
does not need them.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := o.body(env.Stdin)
			if err != nil {
				return err
			}
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			_, doc, err := c.call(cmd.Context(), http.MethodPut, s.path("managedEnvironments", args[0], "storages", args[1]), version(), body)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "set storage %s\n", args[1])
			return env.show(doc, func(io.Writer) {})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kind, "storage-type", "AzureFile", "AzureFile or NfsAzureFile, which is also the storageType of its volumes")
	f.StringVar(&o.access, "access-mode", "", "ReadOnly or ReadWrite")
	f.StringVarP(&o.account, "azure-file-account-name", "a", "", "storage account of an AzureFile storage")
	f.StringVar(&o.keyFile, "azure-file-account-key-file", "", "file with the account's key; - reads standard input")
	f.StringVarP(&o.share, "azure-file-share-name", "f", "", "name of the share")
	f.StringVar(&o.server, "server", "", "server of an NfsAzureFile storage")
	return cmd
}

func (o *storageOptions) body(stdin io.Reader) ([]byte, error) {
	var w app.Storage
	switch {
	case strings.EqualFold(o.kind, "NfsAzureFile"):
		if o.account != "" || o.keyFile != "" {
			return nil, UsageError(errors.New("--azure-file-account-name, --azure-file-account-key-file: an NfsAzureFile storage has a --server and no account"))
		}
		w.Properties.NfsAzureFile = &app.NfsAzureFile{Server: &o.server, AccessMode: &o.access, ShareName: &o.share}
	case strings.EqualFold(o.kind, "AzureFile"):
		if o.server != "" {
			return nil, UsageError(errors.New("--server: an AzureFile storage has none"))
		}
		w.Properties.AzureFile = &app.AzureFile{AccountName: &o.account, AccessMode: &o.access, ShareName: &o.share}
		key, err := readKey(o.keyFile, stdin)
		if err != nil {
			return nil, fmt.Errorf("--azure-file-account-key-file: %w", err)
		}
		if key != "" {
			w.Properties.AzureFile.AccountKey = &key
		}
	default:
		return nil, UsageError(fmt.Errorf("--storage-type: want AzureFile or NfsAzureFile, got %q", o.kind))
	}
	return json.Marshal(w)
}

// readKey reads the single line of a file. Without a file it returns "".
func readKey(path string, stdin io.Reader) (string, error) {
	var b []byte
	var err error
	switch path {
	case "":
		return "", nil
	case "-":
		const most = 1 << 16
		b, err = io.ReadAll(io.LimitReader(stdin, most))
	default:
		b, err = os.ReadFile(path)
	}
	key := strings.TrimSpace(string(b))
	if err == nil && key == "" {
		err = errors.New("want a key, got an empty file")
	}
	return key, err
}

func newStorageRemoveCmd(env *Env, s *scope) *cobra.Command {
	return &cobra.Command{
		Use:   "remove ENVIRONMENT STORAGE",
		Short: "Remove a storage that no app mounts; its folder is kept",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client(cmd)
			if err != nil {
				return err
			}
			path := s.path("managedEnvironments", args[0], "storages", args[1])
			// ARM reports success for deleting what does not exist; a user who typed a name wants to know that it does not.
			if _, err := c.get(cmd.Context(), path, version()); err != nil {
				return err
			}
			if _, _, err := c.call(cmd.Context(), http.MethodDelete, path, version(), nil); err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "removed storage %s; its folder is kept\n", args[1])
			return nil
		},
	}
}
