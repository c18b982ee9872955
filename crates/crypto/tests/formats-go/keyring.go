package main

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// keyring is an MSK1 document.
type keyring struct {
	Format  string  `json:"format"`
	Entries []entry `json:"entries"`
}

type entry struct {
	ID       string         `json:"id"`
	Purpose  string         `json:"purpose"`
	State    string         `json:"state"`
	Created  string         `json:"created"`
	Wrapped  wrapped        `json:"wrapped"`
	Recovery []recoveryCopy `json:"recovery"`
}

// wrapped is the key of an entry as its provider has wrapped it.
type wrapped struct {
	Provider    string            `json:"provider"`
	KeyID       string            `json:"keyId"`
	Ciphertext  string            `json:"ciphertext"`
	Annotations map[string]string `json:"annotations"`
}

// keys are the seeds by seedId, and the sealing keys by keyId, both in hex.
type keys struct {
	seeds   map[string][]byte
	sealing map[string]hpke.PrivateKey
}

// gatherKeys opens the keyring of a job, and says which entries did not open. One such entry does not hold up the others.
func gatherKeys(in *job) (*keys, []finding, error) {
	found := &keys{seeds: map[string][]byte{}, sealing: map[string]hpke.PrivateKey{}}
	if in.Keyring == nil {
		return found, nil, nil
	}
	if in.Keyring.Format != "MSK1" {
		return nil, nil, fmt.Errorf("format %q", in.Keyring.Format)
	}
	open, err := in.opener()
	if err != nil {
		return nil, nil, err
	}
	var closed []finding
	for _, entry := range in.Keyring.Entries {
		if err := found.addEntry(&entry, open); err != nil {
			closed = append(closed, finding{ID: entry.ID, Error: err.Error()})
		}
	}
	return found, closed, nil
}

// opener gives the plaintext P of an entry: from its copy for the recovery key, if the job has that key, and else from what its
// provider has wrapped.
func (in *job) opener() (func(*entry) ([]byte, error), error) {
	if in.RecoveryKey != "" {
		key, err := parseRecoveryKey(in.RecoveryKey)
		if err != nil {
			return nil, err
		}
		return key.open, nil
	}
	kek, err := hex.DecodeString(in.KEK)
	if err != nil {
		return nil, err
	}
	return func(e *entry) ([]byte, error) { return unwrap(&e.Wrapped, kek, in.KMS) }, nil
}

// unwrap opens what a provider has wrapped, with the KEK or the plugin of that name.
func unwrap(w *wrapped, kek []byte, plugins map[string]string) ([]byte, error) {
	if name, ok := strings.CutPrefix(w.Provider, providerKMS); ok {
		socket, ok := plugins[name]
		if !ok {
			return nil, fmt.Errorf("needs the KMS plugin %s", name)
		}
		return decrypt(socket, w)
	}
	if w.Provider != "local" && w.Provider != "file" {
		return nil, fmt.Errorf("needs the provider %q", w.Provider)
	}
	if w.KeyID != keyID(kek) {
		return nil, fmt.Errorf("needs the KEK %s", w.KeyID)
	}
	sealed, err := base64.StdEncoding.DecodeString(w.Ciphertext)
	if err != nil || len(sealed) < 12 {
		return nil, errors.New("ciphertext")
	}
	return openGCM(kek, sealed[:12], sealed[12:], lp("MSK1"))
}

// addEntry adds the key of an entry; open gives its plaintext P. What is wrapped must be what the entry says, also by a plugin,
// which authenticates nothing else.
func (k *keys) addEntry(e *entry, open func(*entry) ([]byte, error)) error {
	plain, err := open(e)
	if err != nil {
		return err
	}
	r := reader{rest: plain}
	purpose, id, created, seed := r.field(), r.field(), r.field(), r.take(32)
	if r.failed || len(r.rest) != 0 || purpose != e.Purpose || id != e.ID || created != e.Created {
		return errors.New("is not what is wrapped")
	}
	switch purpose {
	case "record":
		id = hex.EncodeToString(derive(seed, nil, "MSE1/id", 8))
		if id == e.ID {
			k.seeds[id] = seed
		}
	case "sealing":
		key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
		if err != nil {
			return err
		}
		id = keyID(key.PublicKey().Bytes())
		if id == e.ID {
			k.sealing[id] = key
		}
	default:
		return fmt.Errorf("purpose %q", purpose)
	}
	if id != e.ID {
		return fmt.Errorf("holds the key %s", id)
	}
	return nil
}

func keyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}
