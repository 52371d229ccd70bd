// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command vault-plugin-secrets-apic is the plugin that Vault runs. By hand or from an
// init container, it has one command: install DIR copies it into a directory.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/hashicorp/go-hclog"

	apic "github.com/apic-vault/vault-plugin-secrets-apic"
)

// These are set by the release build through the linker.
var (
	version = "v0.0.0-dev"
	commit  = "unknown"
	date    = "unknown"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "install" {
		if err := install(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	silenceStandardLogger()
	tuneCollector()
	leaveProcessors()
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	if err := serve(logger, apic.BuildInfo{Version: version, Commit: commit, Date: date}, os.Args[1:]); err != nil {
		logger.Error("plugin shutting down", "error", err, "version", version, "commit", commit, "date", date)
		os.Exit(1)
	}
}

// silenceStandardLogger keeps the standard logger's output, which go-plugin hands to
// Vault's log, from anybody. net/http quotes there what a service sends beyond its
// answer, which may be a token or a key, and takes no other logger. With
// GODEBUG=http2debug=2, net/http and the HTTP/2 beneath gRPC print whole frames there:
// requests with their keys, and what Vault and the plugin send each other.
//
// What else in the binary writes to standard error tells of connections and not of
// what goes over them: gRPC's logger (GRPC_GO_LOG_SEVERITY_LEVEL) and GODEBUG=netdns.
// go-retryablehttp's would print URLs, and has none; see upstream.NewCaller.
func silenceStandardLogger() { log.SetOutput(io.Discard) }
