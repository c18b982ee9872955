package main

import (
	"crypto/hpke"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	prefix = "mss1."
	info   = "managedsecrets.dev/mss1"
	encLen = 1120
)

var (
	suite = []byte{0x01, 0x64, 0x7a, 0x00, 0x01, 0x00, 0x02}
	// Strict: unused bits of the last character must be zero. The decoder would skip line ends, so those are refused first.
	encoding = base64.RawURLEncoding.Strict()
)

// openSealed opens sealed text for the object that has it.
func openSealed(text string, at place, k *keys) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, prefix)
	if !ok || strings.ContainsAny(encoded, "\r\n") {
		return nil, errors.New("format: prefix")
	}
	bytes, err := encoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("format: base64")
	}
	r := reader{rest: bytes}
	head, id, scope, namespace, name := r.take(7), r.take(8), r.take(1), r.field(), r.field()
	aad := bytes[:len(bytes)-len(r.rest)]
	enc, ciphertext := r.take(encLen), r.rest
	switch {
	case r.failed || !slices.Equal(head, suite) || !isBucket(len(ciphertext)-16):
		return nil, errors.New("format")
	case scope[0] == 1 && namespace != "" && name != "":
		ok = namespace == at.Namespace && name == at.Name
	case scope[0] == 2 && namespace != "" && name == "":
		ok = namespace == at.Namespace
	case scope[0] == 3 && namespace == "" && name == "":
		ok = true
	default:
		return nil, errors.New("format: scope")
	}
	if !ok {
		return nil, fmt.Errorf("sealed for another place: %s/%s", namespace, name)
	}
	key, ok := k.sealing[hex.EncodeToString(id)]
	if !ok {
		return nil, fmt.Errorf("sealing key %x unknown", id)
	}
	recipient, err := hpke.NewRecipient(enc, key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info))
	if err != nil {
		return nil, err
	}
	padded, err := recipient.Open(aad, ciphertext)
	if err != nil {
		return nil, errors.New("tampered")
	}
	return unpad(padded)
}

// seal seals a value for a scope.
func seal(public []byte, scope byte, at place, value []byte) (string, error) {
	key, err := hpke.MLKEM768X25519().NewPublicKey(public)
	if err != nil {
		return "", err
	}
	id, err := hex.DecodeString(keyID(public))
	if err != nil {
		return "", err
	}
	aad := slices.Concat(suite, id, []byte{scope}, lp(at.Namespace), lp(at.Name))
	enc, sender, err := hpke.NewSender(key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info))
	if err != nil {
		return "", err
	}
	ciphertext, err := sender.Seal(aad, pad(value))
	if err != nil {
		return "", err
	}
	return prefix + encoding.EncodeToString(slices.Concat(aad, enc, ciphertext)), nil
}
