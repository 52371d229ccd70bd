// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// newKubernetesExample is an example with an API server of Kubernetes that its
// kubectl talks to. Nothing else of a cluster runs: what is applied is stored, and
// nobody acts on it.
func newKubernetesExample(t *testing.T, blocks int) *example {
	t.Helper()
	binaries := map[string]string{
		"etcd": builtTool(t, "ETCD"), "kube-apiserver": builtTool(t, "KUBE_APISERVER"), "kubectl": builtTool(t, "KUBECTL"),
	}
	e := newExample(t, "kubernetes", blocks)
	for name, path := range binaries {
		e.check(os.Symlink(path, e.path("bin/"+name)))
	}
	e.makeCertificate("ca.crt", "tls.key")
	e.check(os.WriteFile(e.dir+"/service-accounts.key", keyPEM(e), 0o600))
	token := rand.Text()
	e.check(os.WriteFile(e.dir+"/tokens.csv", []byte(token+",admin,admin,system:masters\n"), 0o600))
	address := e.startAPIServer(e.startEtcd())
	e.writeKubeconfig(address, token)
	return e
}

func (e *example) startEtcd() (address string) {
	e.Helper()
	address = fmt.Sprintf("http://127.0.0.1:%d", freePort(e.T))
	peers := fmt.Sprintf("http://127.0.0.1:%d", freePort(e.T))
	etcd := e.start(e.addBlock(fmt.Sprintf(`exec etcd --name=one --data-dir=etcd --unsafe-no-fsync --log-level=warn \
		--listen-client-urls=%[1]s --advertise-client-urls=%[1]s \
		--listen-peer-urls=%[2]s --initial-advertise-peer-urls=%[2]s --initial-cluster=one=%[2]s`, address, peers)))
	health := e.addBlock("curl -fsS " + address + "/health")
	etcd.waitUntil("etcd is healthy", func() bool {
		_, err := e.run(health)
		return err == nil
	})
	return address
}

// startAPIServer starts a server that issues service account tokens under its own
// address, as Vault expects of an issuer.
func (e *example) startAPIServer(etcd string) (address string) {
	e.Helper()
	port := freePort(e.T)
	address = fmt.Sprintf("https://127.0.0.1:%d", port)
	server := e.start(e.addBlock(fmt.Sprintf(`exec kube-apiserver --etcd-servers=%[1]s --bind-address=127.0.0.1 --secure-port=%[2]d \
		--tls-cert-file=ca.crt --tls-private-key-file=tls.key --token-auth-file=tokens.csv --authorization-mode=RBAC \
		--service-cluster-ip-range=10.0.0.0/24 --service-account-issuer=%[3]s --service-account-jwks-uri=%[3]s/openid/v1/jwks \
		--service-account-signing-key-file=service-accounts.key --service-account-key-file=service-accounts.key`,
		etcd, port, address)))
	ready := e.addBlock("curl -fsS --cacert ca.crt " + address + "/readyz")
	server.waitUntil("the API server is ready", func() bool {
		_, err := e.run(ready)
		return err == nil
	})
	return address
}

func (e *example) writeKubeconfig(address, token string) {
	e.Helper()
	ca, err := os.ReadFile(e.dir + "/ca.crt")
	e.check(err)
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: test, user: {token: %s}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
`, address, base64.StdEncoding.EncodeToString(ca), token)
	e.check(os.WriteFile(e.dir+"/kubeconfig", []byte(kubeconfig), 0o600))
	e.more = append(e.more, "KUBECONFIG="+e.dir+"/kubeconfig")
}

// makeCertificate writes a certificate for loopback, its own CA, and its key.
func (e *example) makeCertificate(certificate, key string) {
	e.Helper()
	private := keyPEM(e)
	block, _ := pem.Decode(private)
	parsed, err := x509.ParseECPrivateKey(block.Bytes)
	e.check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "loopback"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, parsed.Public(), parsed)
	e.check(err)
	e.check(os.WriteFile(e.dir+"/"+certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	e.check(os.WriteFile(e.dir+"/"+key, private, 0o600))
}

func keyPEM(e *example) []byte {
	e.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	e.check(err)
	der, err := x509.MarshalECPrivateKey(key)
	e.check(err)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}
