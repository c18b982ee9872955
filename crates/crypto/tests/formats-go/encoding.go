package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// lp is a length-prefixed field: u16 big-endian, then the bytes.
func lp(field string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(field))), field...)
}

// reader takes fields off the front of bytes. After a field that is not there, it is failed and gives zeros.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || len(r.rest) < n {
		r.failed = true
		return make([]byte, n)
	}
	head := r.rest[:n]
	r.rest = r.rest[n:]
	return head
}

func (r *reader) field() string {
	return string(r.take(int(binary.BigEndian.Uint16(r.take(2)))))
}

func isBucket(n int) bool {
	return n >= 64 && n <= 16384 && n&(n-1) == 0
}

func bucketOf(length int) int {
	bucket := 64
	for bucket < length+4 {
		bucket *= 2
	}
	return bucket
}

func pad(value []byte) []byte {
	out := make([]byte, bucketOf(len(value)))
	binary.BigEndian.PutUint32(out, uint32(len(value)))
	copy(out[4:], value)
	return out
}

func unpad(padded []byte) ([]byte, error) {
	length := int64(binary.BigEndian.Uint32(padded))
	if length > int64(len(padded)-4) || bucketOf(int(length)) != len(padded) {
		return nil, errors.New("padding: wrong length")
	}
	for _, b := range padded[4+length:] {
		if b != 0 {
			return nil, errors.New("padding: not zero")
		}
	}
	return padded[4 : 4+length], nil
}

// derive is HKDF-SHA256.
func derive(ikm, salt []byte, info string, length int) []byte {
	key, err := hkdf.Key(sha256.New, ikm, salt, info, length)
	if err != nil {
		panic(err)
	}
	return key
}

// openGCM opens AES-256-GCM: ciphertext, then a 16-byte tag.
func openGCM(key, nonce, sealed, aad []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return gcm.Open(nil, nonce, sealed, aad)
}
