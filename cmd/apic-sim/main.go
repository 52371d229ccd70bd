// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command apic-sim serves the simulated API Connect services on loopback, for
// trying the engine without an account at IBM. Under /_sim/ it takes faults to
// inject; see apicsim.Sim.Control.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "apic-sim:", err)
		os.Exit(1)
	}
}

type settings struct {
	listen, credentialsFile, readyFile string
	apiKeyFiles                        []string
	tokenTTL, latency                  time.Duration
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var set settings
	flags := flag.NewFlagSet("apic-sim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&set.listen, "listen", "127.0.0.1:0", "loopback `address` to serve on; port 0 is any free one")
	flags.Func("apikey-file", "`file` of an API key, apikey.json if there is none; made with a random key if it is missing; may be given again for more keys", func(path string) error {
		set.apiKeyFiles = append(set.apiKeyFiles, path)
		return nil
	})
	flags.StringVar(&set.credentialsFile, "credentials-file", "credentials.json", "`file` of the client credentials that the platform service wants; made with random ones if it is missing")
	flags.StringVar(&set.readyFile, "ready-file", "", "`file` that gets the server's URL once it listens")
	flags.DurationVar(&set.tokenTTL, "token-ttl", time.Hour, "life of the tokens")
	flags.DurationVar(&set.latency, "latency", 0, "time that an exchange takes, until a fault is injected")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("there is no argument %q, only flags", flags.Arg(0))
	}
	if set.tokenTTL <= 0 || set.latency < 0 {
		return errors.New("-token-ttl must be positive and -latency not negative")
	}
	if len(set.apiKeyFiles) == 0 {
		set.apiKeyFiles = []string{"apikey.json"}
	}
	return serve(ctx, set, stdout, stderr)
}

func serve(ctx context.Context, set settings, stdout, stderr io.Writer) error {
	if err := requireLoopback(set.listen); err != nil {
		return err
	}
	var keys []string
	for _, path := range set.apiKeyFiles {
		key, err := readOrMakeKey(path)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	credentials, err := readOrMakeCredentials(set.credentialsFile)
	if err != nil {
		return err
	}
	sim, err := apicsim.New(apicsim.Options{
		Keys:         keys,
		ClientID:     credentials.Toolkit.ClientID,
		ClientSecret: credentials.Toolkit.ClientSecret,
		TokenTTL:     set.tokenTTL,
		Logger:       slog.New(slog.NewTextHandler(stderr, nil)),
	})
	if err != nil {
		return err
	}
	if set.latency > 0 {
		sim.Inject(apicsim.Fault{Latency: set.latency})
	}
	mux := http.NewServeMux()
	mux.Handle("/", sim)
	mux.Handle("/_sim/", http.StripPrefix("/_sim", sim.Control()))
	server, err := apicsim.StartOn(mux, set.listen)
	if err != nil {
		return err
	}
	defer server.Close()
	if err := announce(set.readyFile, server.URL()); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "apic-sim is listening on %s\n", server.URL())
	<-ctx.Done()
	return nil
}

// requireLoopback keeps a service that hands out tokens for a key lying in a file
// off the network.
func requireLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("-listen takes host:port: %w", err)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return errors.New("-listen takes a loopback address, such as 127.0.0.1:0")
	}
	return nil
}

// keyFile has the shape of the file that IBM Cloud's console downloads.
type keyFile struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	CreatedAt   string `json:"createdAt"`
	APIKey      string `json:"apikey"`
}

func readOrMakeKey(path string) (string, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return "", err
	}
	var file keyFile
	if err := json.Unmarshal(content, &file); err != nil || file.APIKey == "" {
		return "", fmt.Errorf("%s is no apikey.json", path)
	}
	return file.APIKey, nil
}

func makeKey(path string) (string, error) {
	file := keyFile{
		Name:        "simulated",
		Description: "made by apic-sim",
		CreatedAt:   time.Now().UTC().Format("2006-01-02T15:04-0700"),
		APIKey:      apicsim.NewKeyValue(),
	}
	content, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return "", err
	}
	return file.APIKey, os.WriteFile(path, append(content, '\n'), 0o600)
}

// announce writes the URL in one step, so that whoever waits for the file never
// reads half of it.
func announce(path, url string) error {
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path+".new", []byte(url+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
