// Reads the value of a secret through the value API, with the token of the pod's service account.
//
//	go run read_value.go NAME|ID
//
// It needs the standard library only. SERVICE_ACCOUNT_DIR names another folder with token, ca.crt and namespace.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// The longest answer: a value has at most 3500 characters.
const maxAnswer = 64 * 1024

// secretValue is what the value API answers with, as far as this program needs it.
type secretValue struct {
	Status struct {
		Version int64  `json:"version"`
		Value   string `json:"value"`
	} `json:"status"`
}

func readValue(nameOrID string) (string, error) {
	folder := os.Getenv("SERVICE_ACCOUNT_DIR")
	if folder == "" {
		folder = serviceAccount
	}
	file := func(name string) (string, error) {
		content, err := os.ReadFile(filepath.Join(folder, name))
		return strings.TrimSpace(string(content)), err
	}
	// Kubernetes replaces the token, so it is read for each request.
	token, err := file("token")
	if err != nil {
		return "", err
	}
	namespace, err := file("namespace")
	if err != nil {
		return "", err
	}
	authority, err := file("ca.crt")
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(authority)) {
		return "", errors.New("ca.crt contains no certificate")
	}
	host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	address := fmt.Sprintf("https://%s/apis/values.managedsecrets.dev/v1alpha1/namespaces/%s/secretvalues/%s",
		host, url.PathEscape(namespace), url.PathEscape(nameOrID))
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", "application/json")
	client := http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		// A Kubernetes Status; it contains no value.
		return "", fmt.Errorf("HTTP %d: %s", answer.StatusCode, body)
	}
	var found secretValue
	if err := json.Unmarshal(body, &found); err != nil {
		return "", errors.New("the answer is not a SecretValue")
	}
	return found.Status.Value, nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: read_value NAME|ID")
		os.Exit(2)
	}
	value, err := readValue(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot read the value:", err)
		os.Exit(1)
	}
	fmt.Print(value)
}
