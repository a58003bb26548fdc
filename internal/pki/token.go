package pki

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tokenBytes makes a token that cannot be guessed: 256 bits.
const tokenBytes = 32

// TokenFile returns the API token that is kept at path and makes a random one when there is none. It refuses a file that
// others than its owner may read.
func TokenFile(path string) (string, error) {
	token, err := tokenFile(path)
	if err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	return token, nil
}

func tokenFile(path string) (string, error) {
	content, err := readSecret(path)
	if errors.Is(err, os.ErrNotExist) {
		random := make([]byte, tokenBytes)
		rand.Read(random) // never fails
		token := hex.EncodeToString(random)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", err
		}
		return token, writeWhole(path, []byte(token+"\n"))
	}
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(content))
	if random, err := hex.DecodeString(token); err != nil || len(random) < tokenBytes {
		return "", fmt.Errorf("%s: want %d hexadecimal digits, found %d bytes of something else; remove it to have a new token made", path, 2*tokenBytes, len(token))
	}
	return token, nil
}
