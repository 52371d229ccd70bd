// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command apic-sim serves the simulated API Connect services on loopback, for
// trying the engine without an account at IBM. Under /_sim/ it accepts faults to
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
	apiKeyFiles, singleUseFiles        []string
	tokenTTL, latency                  time.Duration
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var set settings
	flags := flag.NewFlagSet("apic-sim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&set.listen, "listen", "127.0.0.1:0", "loopback `address` to serve on; port 0 is any free one")
	flags.Func("apikey-file", "`file` of an API key, apikey.json if there is none; made with a random key if it is missing; may be given again for more keys", appendTo(&set.apiKeyFiles))
	flags.Func("single-use-file", "like -apikey-file, for a `file` of a key that works once and within five minutes from now; the platform's API makes such keys then, too", appendTo(&set.singleUseFiles))
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

// appendTo is a flag that may be given more than once.
func appendTo(values *[]string) func(string) error {
	return func(value string) error {
		*values = append(*values, value)
		return nil
	}
}

func serve(ctx context.Context, set settings, stdout, stderr io.Writer) error {
	if err := requireLoopback(set.listen); err != nil {
		return err
	}
	sim, err := newSim(set, stderr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", sim)
	mux.Handle("/_sim/", http.StripPrefix("/_sim", sim.Control()))
	server, err := apicsim.StartOn(mux, set.listen)
	if err != nil {
		return err
	}
	defer server.Close()
	if err := writeURL(set.readyFile, server.URL()); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "apic-sim is listening on %s\n", server.URL())
	<-ctx.Done()
	return nil
}

// newSim is a simulation with the secrets of the settings' files.
func newSim(set settings, stderr io.Writer) (*apicsim.Sim, error) {
	keys, err := readOrMakeKeys(set.apiKeyFiles)
	if err != nil {
		return nil, err
	}
	singleUse, err := readOrMakeKeys(set.singleUseFiles)
	if err != nil {
		return nil, err
	}
	credentials, err := readOrMakeCredentials(set.credentialsFile)
	if err != nil {
		return nil, err
	}
	sim, err := apicsim.New(apicsim.Options{
		Keys:         keys,
		ClientID:     credentials.Toolkit.ClientID,
		ClientSecret: credentials.Toolkit.ClientSecret,
		TokenTTL:     set.tokenTTL,
		Logger:       slog.New(slog.NewTextHandler(stderr, nil)),
	})
	if err != nil {
		return nil, err
	}
	for _, key := range singleUse {
		sim.AddLimitedKey(key, apicsim.KeyOptions{SingleUse: true, Life: singleUseLife})
	}
	sim.SetPlatformKeys(apicsim.PlatformKeys{SingleUse: len(singleUse) > 0, Life: singleUseLife})
	if set.latency > 0 {
		sim.Inject(apicsim.Fault{Latency: set.latency})
	}
	return sim, nil
}

// requireLoopback keeps a service that hands out tokens for a key in a file
// off the network.
func requireLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("-listen must be host:port: %w", err)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return errors.New("-listen must be a loopback address, such as 127.0.0.1:0")
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

// singleUseLife is how long the platform lets a key live unless an administrator says
// otherwise.
const singleUseLife = 5 * time.Minute

func readOrMakeKeys(paths []string) ([]string, error) {
	var keys []string
	for _, path := range paths {
		key, err := readOrMakeKey(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
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

// writeURL writes the URL in one step, so that a program that waits for the file never
// reads half of it.
func writeURL(path, url string) error {
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path+".new", []byte(url+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
