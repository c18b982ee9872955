// Command formats reads MSE1, mss1, MSK1 and the metadata mac as docs/formats.md describes them, with Go's standard
// library alone. It shares no code with the operator: what both understand, the page describes.
//
// It reads a job from standard input and writes its findings to standard output, both JSON. Values are reported as their
// SHA-256.
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
)

// job is what to read, with the keys of a keyring. A recovery key opens them, or their KEK and KMS plugins: the socket of each
// by its name, as unix:///PATH.
type job struct {
	KEK         string            `json:"kek"`
	KMS         map[string]string `json:"kms"`
	RecoveryKey string            `json:"recoveryKey"`
	Keyring     *keyring          `json:"keyring"`
	Records     []struct {
		place
		Bytes string `json:"bytes"`
	} `json:"records"`
	Kept []struct {
		place
		History string            `json:"history"`
		Data    map[string]string `json:"data"`
	} `json:"kept"`
	Macs []struct {
		metadata
		Commitment string `json:"commitment"`
		Mac        string `json:"mac"`
	} `json:"macs"`
	Sealed []struct {
		place
		Text string `json:"text"`
	} `json:"sealed"`
	Seal []struct {
		place
		Scope     byte   `json:"scope"`
		PublicKey string `json:"publicKey"`
		Value     string `json:"value"`
	} `json:"seal"`
}

// place is the object that a record or a sealed text belongs to.
type place struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// findings answers a job, list by list. An item that could not be read says why in Error. Keys lists the entries of the keyring
// that did not open, and is absent if all did.
type findings struct {
	Keys    []finding   `json:"keys,omitempty"`
	Records []finding   `json:"records"`
	Kept    [][]finding `json:"kept"`
	Macs    []finding   `json:"macs"`
	Sealed  []finding   `json:"sealed"`
	Seal    []finding   `json:"seal"`
}

type finding struct {
	ID      string `json:"id,omitempty"`
	Error   string `json:"error,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
	UID     string `json:"uid,omitempty"`
	Version uint64 `json:"version,omitempty"`
	Kept    bool   `json:"kept,omitempty"`
	Text    string `json:"text,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var in job
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return fmt.Errorf("job: %w", err)
	}
	keys, closed, err := gatherKeys(&in)
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	out := findings{Keys: closed}
	for _, item := range in.Records {
		bytes, err := hex.DecodeString(item.Bytes)
		if err != nil {
			return err
		}
		record, value, err := openRecord(bytes, item.place, keys)
		out.Records = append(out.Records, report(finding{SHA256: digest(value), UID: record.uid, Version: record.version}, err))
	}
	for _, item := range in.Kept {
		out.Kept = append(out.Kept, openKept(item.History, item.Data, item.place, keys))
	}
	for _, item := range in.Macs {
		commitment, err := base64.StdEncoding.DecodeString(item.Commitment)
		if err != nil {
			return err
		}
		out.Macs = append(out.Macs, report(finding{}, verifyMac(item.metadata, commitment, item.Mac, keys)))
	}
	for _, item := range in.Sealed {
		value, kept, err := openSealed(item.Text, item.place, keys)
		out.Sealed = append(out.Sealed, report(finding{SHA256: digest(value), Kept: kept}, err))
	}
	for _, item := range in.Seal {
		public, err := base64.StdEncoding.DecodeString(item.PublicKey)
		if err != nil {
			return err
		}
		text, err := seal(public, item.Scope, item.place, []byte(item.Value))
		out.Seal = append(out.Seal, report(finding{Text: text}, err))
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func report(found finding, err error) finding {
	if err != nil {
		return finding{Error: err.Error()}
	}
	return found
}

func digest(value []byte) string {
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:])
}
