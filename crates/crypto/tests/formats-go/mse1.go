package main

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// header is what a record says about itself.
type header struct {
	version uint64
	uid     string
}

// openRecord opens an MSE1 record found at a place.
func openRecord(record []byte, at place, k *keys) (header, []byte, error) {
	r := reader{rest: record}
	magic, suite, purpose := r.take(4), r.take(1), r.take(1)
	version := r.take(8)
	uid := r.field()
	seedID, salt, wrapNonce, wrapped := r.take(8), r.take(32), r.take(12), r.take(48)
	commitment, nonce, payload := r.take(32), r.take(12), r.rest
	head := header{version: binary.BigEndian.Uint64(version), uid: uid}
	if r.failed || string(magic) != "MSE1" || suite[0] != 1 || purpose[0] != 1 || len(uid) > 64 || !isBucket(len(payload)-16) {
		return head, nil, errors.New("format")
	}
	seed, ok := k.seeds[hex.EncodeToString(seedID)]
	if !ok {
		return head, nil, fmt.Errorf("seed %x unknown", seedID)
	}
	aad := func(label string) []byte {
		return slices.Concat(lp(label), suite, purpose, lp(at.Namespace), lp(at.Name), lp("value"), lp(uid), version)
	}
	dek, err := openGCM(derive(seed, salt, "MSE1/wrap", 32), wrapNonce, wrapped, aad("MSE1/wrap"))
	if err != nil {
		return head, nil, errors.New("wrap")
	}
	payloadAAD := aad("MSE1/payload")
	prk, err := hkdf.Extract(sha256.New, dek, []byte("MSE1/dek"))
	if err != nil {
		return head, nil, err
	}
	ck, err := hkdf.Expand(sha256.New, prk, "commit"+string(payloadAAD), 32)
	if err != nil {
		return head, nil, err
	}
	if subtle.ConstantTimeCompare(ck, commitment) != 1 {
		return head, nil, errors.New("commitment")
	}
	ek, err := hkdf.Expand(sha256.New, prk, "enc"+string(payloadAAD), 32)
	if err != nil {
		return head, nil, err
	}
	padded, err := openGCM(ek, nonce, payload, payloadAAD)
	if err != nil {
		return head, nil, errors.New("payload")
	}
	value, err := unpad(padded)
	return head, value, err
}

// openKept opens the earlier values that a record at a place keeps: what its history annotation, which the mac covers,
// says about its data. One that is missing or is not the one that the history names has its own error.
func openKept(history string, data map[string]string, at place, k *keys) []finding {
	var found []finding
	for entry := range strings.SplitSeq(history, " ") {
		parts := strings.SplitN(entry, ":", 3)
		if len(parts) != 3 {
			found = append(found, finding{Error: "history"})
			continue
		}
		record, err := hex.DecodeString(data["value."+parts[0]])
		if err != nil || len(record) == 0 {
			found = append(found, finding{Error: "missing"})
			continue
		}
		head, value, err := openRecord(record, at, k)
		named := strconv.FormatUint(head.version, 10) == parts[0] && commitmentText(record) == parts[1]
		if err == nil && !named {
			err = errors.New("another version")
		}
		found = append(found, report(finding{SHA256: digest(value), UID: head.uid, Version: head.version}, err))
	}
	return found
}

// commitmentText is the key commitment of a record that has opened, as annotations have it.
func commitmentText(record []byte) string {
	r := reader{rest: record}
	r.take(14)
	r.field()
	r.take(8 + 32 + 12 + 48)
	return base64.StdEncoding.EncodeToString(r.take(32))
}

// metadata is what the mac covers, in this order.
type metadata struct {
	place
	UID            string `json:"uid"`
	ID             string `json:"id"`
	SecretName     string `json:"secretName"`
	Description    string `json:"description"`
	Created        string `json:"created"`
	Updated        string `json:"updated"`
	ValueUpdated   string `json:"valueUpdated"`
	Version        string `json:"version"`
	Generation     string `json:"generation"`
	DeletionPolicy string `json:"deletionPolicy"`
	Source         string `json:"source"`
	Target         string `json:"target"`
	History        string `json:"history"`
}

// verifyMac checks the text of a mac annotation.
func verifyMac(m metadata, commitment []byte, text string, k *keys) error {
	mac, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(mac) != 40 {
		return errors.New("malformed")
	}
	seed, ok := k.seeds[hex.EncodeToString(mac[:8])]
	if !ok {
		return fmt.Errorf("seed %x unknown", mac[:8])
	}
	var message bytes.Buffer
	for _, field := range []string{
		"MSE1/meta", m.Namespace, m.Name, m.UID, m.ID, m.SecretName, m.Description, m.Created, m.Updated,
		m.ValueUpdated, m.Version, m.Generation, m.DeletionPolicy, m.Source, m.Target,
	} {
		message.Write(lp(field))
	}
	if m.History != "" {
		message.Write(lp(m.History))
	}
	message.Write(commitment)
	h := hmac.New(sha256.New, derive(seed, nil, "MSE1/meta", 32))
	h.Write(message.Bytes())
	if !hmac.Equal(h.Sum(nil), mac[8:]) {
		return errors.New("mismatch")
	}
	return nil
}
