package main

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// keyring is an MSK1 document.
type keyring struct {
	Format  string `json:"format"`
	Entries []struct {
		ID      string `json:"id"`
		Purpose string `json:"purpose"`
		State   string `json:"state"`
		Created string `json:"created"`
		Wrapped struct {
			Provider   string `json:"provider"`
			KeyID      string `json:"keyId"`
			Ciphertext string `json:"ciphertext"`
		} `json:"wrapped"`
	} `json:"entries"`
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
	kek, err := hex.DecodeString(in.KEK)
	if err != nil {
		return nil, err
	}
	return found, found.addKeyring(in.Keyring, kek)
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

func (k *keys) addKeyring(document *keyring, kek []byte) error {
	if document.Format != "MSK1" {
		return fmt.Errorf("format %q", document.Format)
	}
	for _, entry := range document.Entries {
		if entry.Wrapped.KeyID != keyID(kek) {
			return fmt.Errorf("entry %s needs the KEK %s", entry.ID, entry.Wrapped.KeyID)
		}
		wrapped, err := base64.StdEncoding.DecodeString(entry.Wrapped.Ciphertext)
		if err != nil || len(wrapped) < 12 {
			return fmt.Errorf("entry %s: ciphertext", entry.ID)
		}
		plain, err := openGCM(kek, wrapped[:12], wrapped[12:], lp("MSK1"))
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
