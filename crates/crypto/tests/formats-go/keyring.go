package main

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// keyring is an MSK1 document.
type keyring struct {
	Format  string  `json:"format"`
	Entries []entry `json:"entries"`
}

type entry struct {
	ID      string `json:"id"`
	Purpose string `json:"purpose"`
	State   string `json:"state"`
	Created string `json:"created"`
	Wrapped struct {
		Provider   string `json:"provider"`
		KeyID      string `json:"keyId"`
		Ciphertext string `json:"ciphertext"`
	} `json:"wrapped"`
	Recovery []recoveryCopy `json:"recovery"`
}

// keys are the seeds by seedId, and the sealing keys by keyId, both in hex.
type keys struct {
	seeds   map[string][]byte
	sealing map[string]hpke.PrivateKey
}

func gatherKeys(in *job) (*keys, error) {
	found := &keys{seeds: map[string][]byte{}, sealing: map[string]hpke.PrivateKey{}}
	if in.Keyring == nil {
		return found, nil
	}
	if in.RecoveryKey != "" {
		key, err := parseRecoveryKey(in.RecoveryKey)
		if err != nil {
			return nil, err
		}
		return found, found.addKeyring(in.Keyring, key.open)
	}
	kek, err := hex.DecodeString(in.KEK)
	if err != nil {
		return nil, err
	}
	return found, found.addKeyring(in.Keyring, func(e *entry) ([]byte, error) { return unwrap(e, kek) })
}

// unwrap opens what the KEK has wrapped of an entry.
func unwrap(e *entry, kek []byte) ([]byte, error) {
	if e.Wrapped.KeyID != keyID(kek) {
		return nil, fmt.Errorf("needs the KEK %s", e.Wrapped.KeyID)
	}
	wrapped, err := base64.StdEncoding.DecodeString(e.Wrapped.Ciphertext)
	if err != nil || len(wrapped) < 12 {
		return nil, errors.New("ciphertext")
	}
	return openGCM(kek, wrapped[:12], wrapped[12:], lp("MSK1"))
}

func (k *keys) addSeed(seed []byte) string {
	id := hex.EncodeToString(derive(seed, nil, "MSE1/id", 8))
	k.seeds[id] = seed
	return id
}

func (k *keys) addSealing(seed []byte) (string, error) {
	key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
	if err != nil {
		return "", err
	}
	id := keyID(key.PublicKey().Bytes())
	k.sealing[id] = key
	return id, nil
}

// addKeyring adds every key of a document; open gives the plaintext P of an entry.
func (k *keys) addKeyring(document *keyring, open func(*entry) ([]byte, error)) error {
	if document.Format != "MSK1" {
		return fmt.Errorf("format %q", document.Format)
	}
	for _, entry := range document.Entries {
		plain, err := open(&entry)
		if err != nil {
			return fmt.Errorf("entry %s: %w", entry.ID, err)
		}
		r := reader{rest: plain}
		purpose, id, created, seed := r.field(), r.field(), r.field(), r.take(32)
		if r.failed || len(r.rest) != 0 || purpose != entry.Purpose || id != entry.ID || created != entry.Created {
			return fmt.Errorf("entry %s is not what is wrapped", entry.ID)
		}
		switch purpose {
		case "record":
			id = k.addSeed(seed)
		case "sealing":
			if id, err = k.addSealing(seed); err != nil {
				return err
			}
		default:
			return fmt.Errorf("entry %s: purpose %q", entry.ID, purpose)
		}
		if id != entry.ID {
			return fmt.Errorf("entry %s holds the seed of %s", entry.ID, id)
		}
	}
	return nil
}

func keyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}
