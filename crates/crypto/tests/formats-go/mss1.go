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
	// keptBit of the scope byte: the value is not to be delivered without the permission to read it.
	keptBit = 0x80
)

var (
	suite = []byte{0x01, 0x64, 0x7a, 0x00, 0x01, 0x00, 0x02}
	// Strict: unused bits of the last character must be zero. The decoder would skip line ends, so those are refused first.
	encoding = base64.RawURLEncoding.Strict()
)

// openSealed opens sealed text for the object that has it, and says whether its value is kept.
func openSealed(text string, at place, k *keys) (value []byte, kept bool, err error) {
	encoded, ok := strings.CutPrefix(text, prefix)
	if !ok || strings.ContainsAny(encoded, "\r\n") {
		return nil, false, errors.New("format: prefix")
	}
	bytes, err := encoding.DecodeString(encoded)
	if err != nil {
		return nil, false, errors.New("format: base64")
	}
	r := reader{rest: bytes}
	head, id, scopeByte, namespace, name := r.take(7), r.take(8), r.take(1), r.field(), r.field()
	aad := bytes[:len(bytes)-len(r.rest)]
	enc, ciphertext := r.take(encLen), r.rest
	if r.failed || !slices.Equal(head, suite) || !isBucket(len(ciphertext)-16) {
		return nil, false, errors.New("format")
	}
	scope := scopeByte[0] &^ keptBit
	kept = scopeByte[0]&keptBit != 0
	switch {
	case scope == 1 && namespace != "" && name != "":
		ok = namespace == at.Namespace && name == at.Name
	case scope == 2 && namespace != "" && name == "":
		ok = namespace == at.Namespace
	case scope == 3 && namespace == "" && name == "":
		ok = true
	default:
		return nil, false, errors.New("format: scope")
	}
	if !ok {
		return nil, false, fmt.Errorf("sealed for another place: %s/%s", namespace, name)
	}
	key, ok := k.sealing[hex.EncodeToString(id)]
	if !ok {
		return nil, false, fmt.Errorf("sealing key %x unknown", id)
	}
	recipient, err := hpke.NewRecipient(enc, key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info))
	if err != nil {
		return nil, false, err
	}
	padded, err := recipient.Open(aad, ciphertext)
	if err != nil {
		return nil, false, errors.New("tampered")
	}
	value, err = unpad(padded)
	return value, kept, err
}

// seal seals a value for a scope byte.
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
