// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// The manifests of examples/kubernetes, beside app.yaml.
const (
	vaultSecretsOperator = "vault-secrets-operator.yaml"
	externalSecrets      = "external-secrets.yaml"
	agentInjector        = "agent-injector.yaml"
	secretsStoreCSI      = "secrets-store-csi.yaml"
)

var manifests = []string{vaultSecretsOperator, externalSecrets, agentInjector, secretsStoreCSI}

// The blocks of the README.
const (
	blockApp = iota
	blockVault
	blockApply
	blockLook
)

func TestExampleKubernetes_onAnAPIServer(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newKubernetesExample(t, blockLook+1)
	e.mustRun(blockApp)
	e.installSchemas()
	e.mustRun(blockVault)
	e.mustRun(blockApply)

	token := e.readAsServiceAccount("my-app", "my-app")
	if got := e.callMe(token); got != http.StatusOK {
		t.Errorf("the API manager answered %d to the token", got)
	}
	e.mustRun(e.addBlock("kubectl create serviceaccount somebody-else"))
	if output, err := e.run(e.loginBlock("default", "somebody-else")); err == nil || !strings.Contains(output, "invalid subject (sub) claim") {
		t.Errorf("another service account's login ended with %v and said %s", err, e.scrub(output))
	}

	t.Run("the injected Agent", e.requireInjectedAgentWrites)
	// kubectl looks for what changed in those that are there, and stumbles before the server does.
	for _, name := range manifests {
		e.mustRun(e.addBlock("kubectl delete --ignore-not-found -f " + name))
	}
	for _, name := range append([]string{"app.yaml"}, manifests...) {
		t.Run(name, func(t *testing.T) { e.requireRefusedWhenMisspelt(t, name) })
	}
}

// TestExampleKubernetes_asWritten is what needs no API server.
func TestExampleKubernetes_asWritten(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig(exampleConfig, nil)
	answer := s.readToken(exampleConfig).Data

	operator := documents(t, vaultSecretsOperator)
	kept := included(t, operator[2], answer)
	if !slices.Equal(kept, []string{"token"}) {
		t.Errorf("Vault Secrets Operator would keep %v", kept)
	}
	paths := map[string]string{
		vaultSecretsOperator: field(t, operator[2], "spec", "mount") + "/" + field(t, operator[2], "spec", "path"),
		externalSecrets:      field(t, documents(t, externalSecrets)[0], "spec", "path"),
		agentInjector:        injectorAnnotations(t)["vault.hashicorp.com/agent-inject-secret-apic-token"],
		secretsStoreCSI:      providerObject(t).SecretPath,
	}
	for name, path := range paths {
		if path != "apic/token/"+exampleConfig {
			t.Errorf("%s reads %q", name, path)
		}
	}
	if object := providerObject(t); answer[object.SecretKey] == nil || object.ObjectName == "" {
		t.Errorf("the CSI provider would write %+v", object)
	}
	requireKnownAnnotations(t)
}

// installSchemas makes the API server know the resources of the operators.
func (e *example) installSchemas() {
	e.Helper()
	schemas, err := filepath.Abs("testdata/kubernetes")
	e.check(err)
	e.mustRun(e.addBlock("kubectl apply -f '" + schemas + "'; kubectl wait --for=condition=Established --timeout=30s crd --all"))
}

// loginBlock logs in to Vault as a service account and prints the Vault token.
func (e *example) loginBlock(namespace, account string) int {
	return e.addBlock(fmt.Sprintf(`kubectl -n %s create token %s --audience=vault |
		vault write -field=token auth/jwt/login role=my-app jwt=-`, namespace, account))
}

func (e *example) readAsServiceAccount(namespace, account string) (token string) {
	e.Helper()
	client, err := e.client.Clone()
	e.check(err)
	client.SetToken(strings.TrimSpace(e.mustRun(e.loginBlock(namespace, account))))
	secret, err := client.Logical().ReadWithContext(e.Context(), "apic/token/"+exampleConfig)
	e.check(err)
	return secret.Data["token"].(string)
}

// requireInjectedAgentWrites runs Vault Agent as the injector does: by its method
// kubernetes, with the volume's token, the annotations' path, role and template.
func (e *example) requireInjectedAgentWrites(t *testing.T) {
	said := injectorAnnotations(t)
	config := fmt.Sprintf(`
auto_auth {
  method "kubernetes" {
    mount_path = %q
    config     = { role = %q, token_path = "volume-token" }
  }
}
template {
  destination = "apic-token"
  perms       = %q
  contents    = %q
}`, said["vault.hashicorp.com/auth-path"], said["vault.hashicorp.com/role"],
		said["vault.hashicorp.com/agent-inject-perms-apic-token"], said["vault.hashicorp.com/agent-inject-template-apic-token"])
	e.check(os.WriteFile(e.dir+"/agent.hcl", []byte(config), 0o600))
	e.mustRun(e.addBlock("umask 077; kubectl -n my-app create token my-app --audience=vault >volume-token"))
	agent := e.start(e.addBlock("env -u VAULT_TOKEN vault agent -config=agent.hcl"))
	first := e.waitForFile(agent, e.dir+"/apic-token", "")
	if got := e.callMe(strings.TrimSpace(first)); got != http.StatusOK {
		t.Errorf("the API manager answered %d to what Agent wrote", got)
	}
	agent.stop()
	e.requireDiscreet(agent.said.String())
}

// requireRefusedWhenMisspelt misspells each field of a manifest in turn.
func (e *example) requireRefusedWhenMisspelt(t *testing.T, name string) {
	content, err := os.ReadFile(filepath.Join(e.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	e.mustRun(e.addBlock("kubectl apply --dry-run=server -f " + name))
	dryRun := e.addBlock("kubectl apply --dry-run=server -f misspelt.yaml")
	tried := 0
	for _, document := range documents(t, name) {
		for _, key := range fieldNames(document) {
			lines := strings.Split(string(content), "\n")
			end := key.Column - 1 + len(key.Value)
			lines[key.Line-1] = lines[key.Line-1][:end] + "x" + lines[key.Line-1][end:]
			if err := os.WriteFile(e.dir+"/misspelt.yaml", []byte(strings.Join(lines, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			output, err := e.run(dryRun)
			// Without these it is not known whose fields the others are.
			told := strings.Contains(output, "unknown field") || slices.Contains([]string{"apiVersion", "kind", "metadata", "name"}, key.Value)
			if err == nil || !told {
				t.Errorf("with %sx in line %d the API server said %s", key.Value, key.Line, output)
			}
			tried++
		}
	}
	if tried < 15 {
		t.Errorf("only %d fields were found", tried)
	}
}

// fieldNames are the keys of a manifest, without those that may have any name.
func fieldNames(node *yaml.Node) (keys []*yaml.Node) {
	if node.Kind != yaml.MappingNode {
		for _, child := range node.Content {
			keys = append(keys, fieldNames(child)...)
		}
		return keys
	}
	for i := 0; i < len(node.Content); i += 2 {
		keys = append(keys, node.Content[i])
		switch node.Content[i].Value {
		case "annotations", "labels", "matchLabels", "data", "volumeAttributes":
		default:
			keys = append(keys, fieldNames(node.Content[i+1])...)
		}
	}
	return keys
}

// documents are the parts of a manifest.
func documents(t *testing.T, name string) (parts []*yaml.Node) {
	t.Helper()
	content, err := os.ReadFile("../../examples/kubernetes/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
		part := new(yaml.Node)
		err := decoder.Decode(part)
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		parts = append(parts, part)
	}
}

// lookUp decodes what lies at a path of fields.
func lookUp(t *testing.T, document *yaml.Node, into any, path ...string) {
	t.Helper()
	node := document.Content[0]
	for _, name := range path {
		var fields map[string]yaml.Node
		if err := node.Decode(&fields); err != nil {
			t.Fatal(err)
		}
		next := fields[name]
		node = &next
	}
	if err := node.Decode(into); err != nil {
		t.Fatalf("%v: %v", path, err)
	}
}

func field(t *testing.T, document *yaml.Node, path ...string) (value string) {
	t.Helper()
	lookUp(t, document, &value, path...)
	return value
}

// included are the names in an answer that one of the operator's expressions matches.
func included(t *testing.T, document *yaml.Node, answer map[string]any) (names []string) {
	t.Helper()
	var expressions []string
	lookUp(t, document, &expressions, "spec", "destination", "transformation", "includes")
	for name := range answer {
		if slices.ContainsFunc(expressions, func(expression string) bool { return regexp.MustCompile(expression).MatchString(name) }) {
			names = append(names, name)
		}
	}
	return names
}

func injectorAnnotations(t *testing.T) (annotations map[string]string) {
	t.Helper()
	lookUp(t, documents(t, agentInjector)[0], &annotations, "spec", "template", "metadata", "annotations")
	return annotations
}

// requireKnownAnnotations fails for an annotation that the injector's documentation
// does not have: Kubernetes takes any.
func requireKnownAnnotations(t *testing.T) {
	t.Helper()
	known := []string{
		"agent-inject", "service", "tls-secret", "ca-cert", "auth-path", "role", "agent-service-account-token-volume-name",
		"agent-inject-secret-apic-token", "agent-inject-template-apic-token", "agent-inject-perms-apic-token",
	}
	for annotation := range injectorAnnotations(t) {
		if name, ok := strings.CutPrefix(annotation, "vault.hashicorp.com/"); !ok || !slices.Contains(known, name) {
			t.Errorf("the injector does not know the annotation %s", annotation)
		}
	}
}

// providerObjectFields are those of the CSI provider's documentation that the
// example uses.
type providerObjectFields struct {
	ObjectName string `yaml:"objectName"`
	SecretPath string `yaml:"secretPath"`
	SecretKey  string `yaml:"secretKey"`
}

// providerObject is the one object of the CSI example, which is text to Kubernetes.
func providerObject(t *testing.T) providerObjectFields {
	t.Helper()
	text := field(t, documents(t, secretsStoreCSI)[0], "spec", "parameters", "objects")
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	var objects []providerObjectFields
	if err := decoder.Decode(&objects); err != nil || len(objects) != 1 {
		t.Fatalf("the objects are %v: %v", objects, err)
	}
	return objects[0]
}
