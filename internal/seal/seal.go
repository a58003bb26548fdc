// Package seal encrypts stored secret values with AES-256-GCM. The key is stored elsewhere.
//
//	sealed value:  version 1 │ key's name, 4 bytes │ nonce, 12 bytes │ ciphertext and tag
//
// A value can be opened only with its key and for the purpose that it was sealed for. A value that is copied to another place
// in the database cannot be opened there.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
)

const (
	version = 1
	nameLen = 4
	headLen = 1 + nameLen
)

// ErrOtherKey is wrapped by errors about a value that was sealed with another key.
var ErrOtherKey = errors.New("sealed under another key")

// Box seals and opens values. Its methods are safe for concurrent use.
type Box struct {
	head []byte // first bytes of every sealed value
	aead cipher.AEAD
}

// New returns a Box for a key of 32 bytes.
func New(key []byte) (*Box, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("key: want 32 bytes, got %d", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	// Nonces are random. The chance that one repeats stays below 2^-32 for 2^32 values, far more than anyone writes.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	name := sha256.Sum256(append([]byte("penstock key name\x00"), key...))
	return &Box{head: append([]byte{version}, name[:nameLen]...), aead: aead}, nil
}

// Seal encrypts a value. Open needs the same purpose.
func (b *Box) Seal(purpose, value string) []byte {
	return b.aead.Seal(bytes.Clone(b.head), nil, []byte(value), b.with(purpose))
}

// Open decrypts a value that Seal returned.
func (b *Box) Open(purpose string, sealed []byte) (string, error) {
	switch {
	case len(sealed) < headLen:
		return "", fmt.Errorf("sealed value: want at least %d bytes, got %d", headLen, len(sealed))
	case sealed[0] != version:
		return "", fmt.Errorf("sealed value: want version %d, got %d", version, sealed[0])
	case !bytes.Equal(sealed[:headLen], b.head):
		return "", fmt.Errorf("%w: its name is %x, this one's is %x", ErrOtherKey, sealed[1:headLen], b.head[1:])
	}
	value, err := b.aead.Open(nil, nil, sealed[headLen:], b.with(purpose))
	if err != nil {
		return "", errors.New("sealed value: it was changed, or is in another's place")
	}
	return string(value), nil
}

func (b *Box) with(purpose string) []byte { return append(bytes.Clone(b.head), purpose...) }
