// Package seal keeps secret values unreadable where they lie: AES-256-GCM under a key that lies elsewhere.
//
//	sealed value:  version 1 │ key's name, 4 bytes │ nonce, 12 bytes │ ciphertext and tag
//
// A value opens only with the key and for the purpose that it was sealed with, so that one that is copied to another
// place in the database is worth nothing there.
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

// ErrOtherKey is wrapped when a value was sealed under another key.
var ErrOtherKey = errors.New("sealed under another key")

// Box seals and opens values. Its methods may be called from many goroutines.
type Box struct {
	head []byte // what sealed values begin with
	aead cipher.AEAD
}

// New returns a box under a key of 32 bytes.
func New(key []byte) (*Box, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("key: want 32 bytes, got %d", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	// Nonces are random: the chance of one twice stays below 2^-32 for 2^32 values, far more than anyone writes.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	name := sha256.Sum256(append([]byte("penstock key name\x00"), key...))
	return &Box{head: append([]byte{version}, name[:nameLen]...), aead: aead}, nil
}

// Seal makes a value unreadable. purpose is what Open has to be given too.
func (b *Box) Seal(purpose, value string) []byte {
	return b.aead.Seal(bytes.Clone(b.head), nil, []byte(value), b.with(purpose))
}

// Open returns what Seal was given.
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
