package pki

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"penstock/internal/atomicfile"
)

// secretBytes is the size of tokens and keys: 256 bits cannot be guessed.
const secretBytes = 32

// TokenFile returns the API token in the file at path. It creates a random token if there is no file. It rejects a file that
// anyone but its owner can read.
func TokenFile(path string) (string, error) {
	token, err := secretFile(path, "remove it to have a new one made")
	if err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	return token, nil
}

// KeyFile returns the key in the file at path, which encrypts secrets. It works like TokenFile.
func KeyFile(path string) ([]byte, error) {
	text, err := secretFile(path, "restore it from a backup: the secrets that were sealed under it cannot be read with another")
	if err != nil {
		return nil, fmt.Errorf("key of the secrets: %w", err)
	}
	key, err := hex.DecodeString(text)
	if err == nil && len(key) != secretBytes {
		err = fmt.Errorf("want %d hexadecimal digits, found %d", 2*secretBytes, len(text))
	}
	if err != nil {
		return nil, fmt.Errorf("key of the secrets: %s: %w", path, err)
	}
	return key, nil
}

// secretFile returns the hexadecimal digits in a file. otherwise is the advice in the error if the file has other content.
func secretFile(path, otherwise string) (string, error) {
	content, err := readSecret(path)
	if errors.Is(err, os.ErrNotExist) {
		random := make([]byte, secretBytes)
		rand.Read(random) // never fails
		made := hex.EncodeToString(random)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", err
		}
		return made, atomicfile.Write(path, []byte(made+"\n"), 0o600)
	}
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(content))
	if random, err := hex.DecodeString(text); err != nil || len(random) < secretBytes {
		return "", fmt.Errorf("%s: want %d hexadecimal digits, found %d bytes of something else; %s", path, 2*secretBytes, len(text), otherwise)
	}
	return text, nil
}
