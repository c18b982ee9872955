package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	providerKMS = "kms:"
	decryptURL  = "http://localhost/v2.KeyManagementService/Decrypt"
)

// decrypt asks a KMS plugin to open what it has wrapped: Decrypt of the contract, k8s.io/kms/apis/v2/api.proto. That is gRPC
// over a unix socket, so one POST of HTTP/2 with one message in either direction.
func decrypt(socket string, w *wrapped) ([]byte, error) {
	path, ok := strings.CutPrefix(socket, "unix://")
	if !ok {
		return nil, errors.New("socket must begin with unix://")
	}
	message, err := decryptRequest(w)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
		Protocols:          new(http.Protocols),
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	// A message of gRPC: whether it is compressed, its length, and its bytes.
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	request, err := http.NewRequest(http.MethodPost, decryptURL, bytes.NewReader(append(body, message...)))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	// An answer without a message has no trailer: its header says the same.
	outcome := response.Trailer
	if outcome.Get("Grpc-Status") == "" {
		outcome = response.Header
	}
	if code := outcome.Get("Grpc-Status"); code != "0" {
		return nil, fmt.Errorf("Decrypt: status %q: %s", code, outcome.Get("Grpc-Message"))
	}
	r := reader{rest: answer}
	compressed, length := r.take(1)[0], binary.BigEndian.Uint32(r.take(4))
	if r.failed || compressed != 0 || uint64(length) != uint64(len(r.rest)) {
		return nil, errors.New("Decrypt: not one message")
	}
	return plaintextOf(r.rest)
}

// decryptRequest is a DecryptRequest in Protocol Buffers: what Encrypt answered. The empty uid is left out, as all empty fields.
func decryptRequest(w *wrapped) ([]byte, error) {
	ciphertext, err := base64.StdEncoding.DecodeString(w.Ciphertext)
	if err != nil {
		return nil, errors.New("ciphertext")
	}
	message := protoField(nil, 1, ciphertext)
	message = protoField(message, 3, []byte(w.KeyID))
	for key, text := range w.Annotations {
		value, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("annotation %s", key)
		}
		message = protoField(message, 4, protoField(protoField(nil, 1, []byte(key)), 2, value))
	}
	return message, nil
}

// plaintextOf is the one field of a DecryptResponse.
func plaintextOf(message []byte) ([]byte, error) {
	var plaintext []byte
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 || tag&7 != 2 {
			return nil, errors.New("Decrypt: the answer is not a DecryptResponse")
		}
		message = message[n:]
		length, n := binary.Uvarint(message)
		if n <= 0 || length > uint64(len(message)-n) {
			return nil, errors.New("Decrypt: the answer is cut off")
		}
		if tag>>3 == 1 {
			plaintext = message[n : n+int(length)]
		}
		message = message[n+int(length):]
	}
	return plaintext, nil
}

// protoField appends a field of bytes or text, or a message in a message.
func protoField(message []byte, number uint64, content []byte) []byte {
	message = binary.AppendUvarint(message, number<<3|2)
	message = binary.AppendUvarint(message, uint64(len(content)))
	return append(message, content...)
}
