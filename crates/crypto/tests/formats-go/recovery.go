package main

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

const (
	recoveryKeyPrefix = "msec-recovery-key-1."
	recoveryInfo      = "managedsecrets.dev/recovery"
)

// recoveryCopy is the key of an entry, sealed to a recovery key.
type recoveryCopy struct {
	Recipient string `json:"recipient"`
	Sealed    string `json:"sealed"`
}

// recoveryKey opens copies.
type recoveryKey struct {
	key hpke.PrivateKey
	id  string
}

// parseRecoveryKey reads the file of a recovery key.
func parseRecoveryKey(file string) (*recoveryKey, error) {
	for line := range strings.Lines(file) {
		digits, ok := strings.CutPrefix(strings.TrimSpace(line), recoveryKeyPrefix)
		if !ok {
			continue
		}
		bytes, err := hex.DecodeString(digits)
		if err != nil || len(bytes) != 36 {
			return nil, errors.New("recovery key: length")
		}
		sum := sha256.Sum256(slices.Concat([]byte(recoveryKeyPrefix), bytes[:32]))
		if !slices.Equal(sum[:4], bytes[32:]) {
			return nil, errors.New("recovery key: checksum")
		}
		key, err := hpke.MLKEM768X25519().NewPrivateKey(bytes[:32])
		if err != nil {
			return nil, err
		}
		return &recoveryKey{key: key, id: keyID(key.PublicKey().Bytes())}, nil
	}
	return nil, errors.New("recovery key: no line has the prefix")
}

// open gives the plaintext P of an entry, as a KEK does.
func (k *recoveryKey) open(e *entry) ([]byte, error) {
	for _, copied := range e.Recovery {
		if copied.Recipient != k.id {
			continue
		}
		sealed, err := base64.StdEncoding.DecodeString(copied.Sealed)
		if err != nil {
			return nil, err
		}
		r := reader{rest: sealed}
		head, id, enc := r.take(7), r.take(8), r.take(encLen)
		if r.failed || !slices.Equal(head, suite) || hex.EncodeToString(id) != k.id {
			return nil, errors.New("copy: format")
		}
		recipient, err := hpke.NewRecipient(enc, k.key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(recoveryInfo))
		if err != nil {
			return nil, err
		}
		return recipient.Open(sealed[:15], r.rest)
	}
	return nil, errors.New("no copy for this recovery key")
}
