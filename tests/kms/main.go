// Command kms-plugin is a KMS v2 plugin for tests: Kubernetes' own gRPC server (k8s.io/kms/pkg/service), AES-256-GCM of the
// Go library, and a file of keys in place of a KMS.
//
// With -faults it does wrong what a file says, from the next call on. With -calls it writes a line for each call.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/kms/pkg/service"
)

// annotation is what a ciphertext needs back to be decrypted.
const annotation = "algorithm.kms.managedsecrets.dev"

// Keys is the file of keys: what a KMS would hold.
type Keys struct {
	// Current is the id of the key that encrypts.
	Current string `json:"current"`
	// Keys are 32 bytes each, by id.
	Keys map[string][]byte `json:"keys"`
}

func (keys *Keys) cipher(id string) (cipher.AEAD, error) {
	key, ok := keys.Keys[id]
	if !ok {
		return nil, errors.New("no such key")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// plugin implements the three calls.
type plugin struct {
	keys, faults, calls string
	lock                sync.Mutex
	answered            int
}

// load reads the keys; the first call creates them.
func (p *plugin) load() (*Keys, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	text, err := os.ReadFile(p.keys)
	if errors.Is(err, os.ErrNotExist) {
		key := make([]byte, 32)
		rand.Read(key)
		keys := &Keys{Current: "1", Keys: map[string][]byte{"1": key}}
		if text, err = json.Marshal(keys); err != nil {
			return nil, err
		}
		return keys, os.WriteFile(p.keys, text, 0o600)
	}
	if err != nil {
		return nil, err
	}
	keys := &Keys{}
	return keys, json.Unmarshal(text, keys)
}

// begin writes down the call, and does the faults that concern every call.
func (p *plugin) begin(ctx context.Context, call, keyID string) (*Faults, *Keys, error) {
	if p.calls != "" {
		p.lock.Lock()
		file, err := os.OpenFile(p.calls, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintln(file, call, keyID)
			err = file.Close()
		}
		p.lock.Unlock()
		if err != nil {
			return nil, nil, err
		}
	}
	faults, err := readFaults(p.faults)
	if err != nil {
		return nil, nil, err
	}
	if err := faults.before(ctx, call); err != nil {
		return nil, nil, err
	}
	keys, err := p.load()
	return faults, keys, err
}

func (p *plugin) Status(ctx context.Context) (*service.StatusResponse, error) {
	faults, keys, err := p.begin(ctx, "Status", "")
	if err != nil {
		return nil, err
	}
	p.lock.Lock()
	p.answered++
	answered := p.answered
	p.lock.Unlock()
	return faults.status(&service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: keys.Current}, answered), nil
}

func (p *plugin) Encrypt(ctx context.Context, _ string, plaintext []byte) (*service.EncryptResponse, error) {
	faults, keys, err := p.begin(ctx, "Encrypt", "")
	if err != nil {
		return nil, err
	}
	if len(plaintext) > 900 {
		return nil, errors.New("the plaintext is too large")
	}
	aead, err := keys.cipher(keys.Current)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	return faults.encrypted(&service.EncryptResponse{
		Ciphertext:  aead.Seal(nonce, nonce, plaintext, []byte(keys.Current)),
		KeyID:       keys.Current,
		Annotations: map[string][]byte{annotation: []byte("AES-256-GCM")},
	}, plaintext), nil
}

func (p *plugin) Decrypt(ctx context.Context, _ string, request *service.DecryptRequest) ([]byte, error) {
	faults, keys, err := p.begin(ctx, "Decrypt", request.KeyID)
	if err != nil {
		return nil, err
	}
	if string(request.Annotations[annotation]) != "AES-256-GCM" {
		return nil, errors.New("the annotation is missing")
	}
	if faults.Strict && request.KeyID != keys.Current {
		return nil, errors.New("the key is not the configured one")
	}
	aead, err := keys.cipher(request.KeyID)
	if err != nil {
		return nil, err
	}
	size := aead.NonceSize()
	if len(request.Ciphertext) < size {
		return nil, errors.New("the ciphertext is too short")
	}
	nonce, sealed := request.Ciphertext[:size], request.Ciphertext[size:]
	plaintext, err := aead.Open(nil, nonce, sealed, []byte(request.KeyID))
	return faults.decrypted(ctx, plaintext, err)
}

func main() {
	socket := flag.String("socket", "", "path of the socket")
	p := &plugin{}
	flag.StringVar(&p.keys, "keys", "", "file of keys; created if it does not exist")
	flag.StringVar(&p.faults, "faults", "", "JSON file of what to do wrong")
	flag.StringVar(&p.calls, "calls", "", "file that gets a line for each call")
	flag.Parse()
	if *socket == "" || p.keys == "" {
		fmt.Fprintln(os.Stderr, "usage: kms-plugin -socket PATH -keys FILE [-faults FILE] [-calls FILE]")
		os.Exit(2)
	}
	if err := os.Remove(*socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := service.NewGRPCService(*socket, 10*time.Second, p).ListenAndServe(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
