package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"k8s.io/kms/pkg/service"
)

// Faults is what the plugin does wrong. The zero value is a plugin that does everything right.
type Faults struct {
	// Hang names calls that get no answer.
	Hang []string `json:"hang"`
	// Fail names calls that get an error.
	Fail []string `json:"fail"`
	// Version and Healthz replace what Status answers.
	Version string `json:"version"`
	Healthz string `json:"healthz"`
	// StatusKeyID replaces the id of the key that Status answers.
	StatusKeyID *string `json:"statusKeyId"`
	// RestlessKeyID has Status answer another id each time.
	RestlessKeyID bool `json:"restlessKeyId"`
	// EncryptKeyID replaces the id of the key that Encrypt answers.
	EncryptKeyID *string `json:"encryptKeyId"`
	// CiphertextBytes pads or cuts the ciphertext.
	CiphertextBytes *int `json:"ciphertextBytes"`
	// Annotations are added.
	Annotations map[string]string `json:"annotations"`
	// AnnotationBytes adds an annotation of this size.
	AnnotationBytes int `json:"annotationBytes"`
	// NoEncryption has Encrypt answer the plaintext.
	NoEncryption bool `json:"noEncryption"`
	// WrongPlaintext has Decrypt answer something else.
	WrongPlaintext bool `json:"wrongPlaintext"`
	// AcceptsAll has Decrypt answer whatever is sent, with something.
	AcceptsAll bool `json:"acceptsAll"`
	// CrashOnAltered ends the process when a ciphertext was altered, and starts it again, as a supervisor does.
	CrashOnAltered bool `json:"crashOnAltered"`
	// HangOnAltered gives no answer when a ciphertext was altered.
	HangOnAltered bool `json:"hangOnAltered"`
	// Strict has Decrypt refuse every key but the current one, as Azure's plugin does.
	Strict bool `json:"strict"`
}

func readFaults(path string) (*Faults, error) {
	faults := &Faults{}
	if path == "" {
		return faults, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return faults, nil
	}
	if err != nil {
		return nil, err
	}
	return faults, json.Unmarshal(text, faults)
}

func (f *Faults) before(ctx context.Context, call string) error {
	if slices.Contains(f.Hang, call) {
		<-ctx.Done()
		return ctx.Err()
	}
	if slices.Contains(f.Fail, call) {
		return errors.New("the KMS does not answer")
	}
	return nil
}

func (f *Faults) status(status *service.StatusResponse, answered int) *service.StatusResponse {
	if f.Version != "" {
		status.Version = f.Version
	}
	if f.Healthz != "" {
		status.Healthz = f.Healthz
	}
	if f.StatusKeyID != nil {
		status.KeyID = *f.StatusKeyID
	}
	if f.RestlessKeyID {
		status.KeyID = fmt.Sprintf("%s-%d", status.KeyID, answered)
	}
	return status
}

func (f *Faults) encrypted(encrypted *service.EncryptResponse, plaintext []byte) *service.EncryptResponse {
	if f.NoEncryption {
		encrypted.Ciphertext = slices.Clone(plaintext)
	}
	if f.EncryptKeyID != nil {
		encrypted.KeyID = *f.EncryptKeyID
	}
	if f.CiphertextBytes != nil {
		encrypted.Ciphertext = append(encrypted.Ciphertext, make([]byte, 64*1024)...)[:*f.CiphertextBytes]
	}
	for key, value := range f.Annotations {
		encrypted.Annotations[key] = []byte(value)
	}
	if f.AnnotationBytes > 0 {
		encrypted.Annotations["size.kms.managedsecrets.dev"] = make([]byte, f.AnnotationBytes)
	}
	return encrypted
}

func (f *Faults) decrypted(ctx context.Context, plaintext []byte, err error) ([]byte, error) {
	if f.CrashOnAltered && err != nil {
		// Closes every connection, as the end of the process does.
		return nil, syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	if f.HangOnAltered && err != nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if f.AcceptsAll && err != nil {
		return make([]byte, 32), nil
	}
	if err == nil && f.WrongPlaintext {
		plaintext[len(plaintext)-1] ^= 1
	}
	return plaintext, err
}
