#!/usr/bin/env perl
# What the compiler does not see: code that nothing uses, pages and comments that name what is gone, modules that import each other.
# It reads the sources as text, and says nothing where a name could be meant in another way.
use strict;
use warnings;
use File::Find;

my @problems;
sub fail { push @problems, "@_" }

sub files {
  my ($ending, @folders) = @_;
  my @found;
  find({ no_chdir => 1, wanted => sub {
    $File::Find::prune = 1, return if -d && m{/(?:target|node_modules|\.git)$};
    push @found, s{^\./}{}r if -f && /$ending/;
  } }, grep { -e } @folders);
  return sort @found;
}

sub text {
  my ($file) = @_;
  open my $handle, '<:encoding(UTF-8)', $file or die "tidy: $file: $!\n";
  local $/;
  return scalar <$handle>;
}

my @crates = qw(router connectors identity fuzz tests benches);
my %source = map { $_ => text($_) } files(qr/\.rs$/, @crates);
# Without comments, and, for what is in a release, without the tests.
my %code = map { $_ => $source{$_} =~ s{^\s*//.*$}{}mgr =~ s{\s//\s.*$}{}mgr } keys %source;
my %released = map { $_ => $code{$_} =~ s{#\[cfg\(test\)\]\s*(?:impl|mod \w+ \{).*}{}sr }
  grep { !m{(?:^|/)(?:tests|benches|fuzz|simulation)/|/(?:tests|fuzz|without_transactions)\.rs$} } keys %code;

# === Public functions that nothing uses ===

my %words;
for my $file (keys %code) { $words{$_}++ for $code{$file} =~ /\w+/g }
for my $file (sort keys %released) {
  while ($released{$file} =~ /^\s*pub(?:\([^)]*\))?\s+(?:const\s+)?(?:async\s+)?fn\s+(\w+)/mg) {
    fail "$file: nothing uses the public function `$1`; remove it" if $words{$1} == 1;
  }
}

# === Metrics that nothing sets ===

my $metrics = 'router/src/telemetry/metrics.rs';
my $router = join "\n", map { $released{$_} } grep { m{^router/src/} } keys %released;
my $declared = 0;
while ($source{$metrics} =~ /^    (\w+): (?:counter|gauge|seconds|histogram)\("(\w+)"/mg) {
  $declared++;
  fail "$metrics: nothing sets the metric $2 (`$1`)" unless $router =~ /\.\s*$1\s*\.with_label_values/;
}
fail "$metrics: no metrics were found" unless $declared;

# === Keys that pages name and no type has ===

my @pages = grep { !m{^docs/adr/} } files(qr/\.md$/, 'docs', 'README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'deploy', 'helm');
my $schema = text('docs/reference/configuration.schema.json');
my %keys = map { $_ => 1 } $schema =~ /"(\w+)": \{/g;
for my $page (@pages) {
  my $text = text($page);
  while ($text =~ /`((?:kafka|identity|sources|accounts|destinations|admin|sandbox)(?:\.(?:[a-z_]+|<[a-z]+>))+)`/g) {
    my ($path, @names) = ($1, split /\./, $1);
    my $section = shift @names;
    # Below these are the names that people give.
    shift @names if $section =~ /^(?:sources|accounts|destinations)$/;
    for my $name (grep { /^[a-z_]+$/ } @names) {
      fail "$page: no configuration has the key `$path`" unless $keys{$name};
    }
  }
}

# === Comments and pages that name files that are gone ===

my $tracked = join "\n", map { "/$_" } files(qr/./, @crates, 'deploy', 'docs', 'helm', 'README.md', 'Cargo.toml', 'Makefile');
sub exists_somewhere { my ($path) = @_; return $tracked =~ m{/\Q$path\E(?:$|/)}m }
for my $file (sort(keys %source), @pages) {
  my $text = $source{$file} // text($file);
  $text = join "\n", $text =~ m{^\s*//[/!].*$}mg if $file =~ /\.rs$/;
  while ($text =~ m{`((?:[a-z_0-9]+/)+[a-z_0-9]+\.(?:rs|sh|md|toml)|[a-z_0-9]+\.rs)`}g) {
    fail "$file: `$1` is not there (any more)" unless exists_somewhere($1);
  }
}

# === Links in comments to code that is gone ===

for my $file (sort keys %source) {
  while ($source{$file} =~ m{^\s*//[/!].*$}mg) {
    my $line = $&;
    while ($line =~ m{\[`([\w:]+)(?:\(\))?`\](?!\()}g) {
      my $name = ($1 =~ /(\w+)$/)[0];
      fail "$file: the comment links to `$1`, which is not there (any more)" unless $words{$name};
    }
  }
}

# === Modules of the router that import each other ===

sub module { my ($file) = @_; return $file =~ s{^router/src/}{}r =~ s{(?:/mod)?\.rs$}{}r }
my %modules = map { module($_) => 1 } grep { m{^router/src/} } keys %released;

# The paths that a `use` with braces stands for.
sub paths {
  my ($tree) = @_;
  $tree =~ s/\s+as\s+\w+//g;
  return ($tree) unless $tree =~ /^([^{]*)\{(.*)\}$/s;
  my ($head, $rest, $depth, $part, @parts) = ($1, $2, 0, '');
  for my $char (split //, $rest) {
    $depth++ if $char eq '{';
    $depth-- if $char eq '}';
    if ($char eq ',' && $depth == 0) { push @parts, $part; $part = '' } else { $part .= $char }
  }
  return map { my $tail = $_; map { "$head$_" } paths($tail) } grep { /\S/ } map { s/^\s+|\s+$//gr } @parts, $part;
}

my %edges;
for my $file (grep { m{^router/src/} && !m{/(?:lib|main)\.rs$} } sort keys %released) {
  my $code = $released{$file};
  my @here = split m{/}, module($file);
  my @found;
  push @found, paths($1 =~ s/\s+/ /gr) while $code =~ /^\s*(?:pub(?:\([^)]*\))?\s+)?use\s+((?:crate|super|self)\b[^;]*);/mg;
  my $rest = $code =~ s/^\s*(?:pub(?:\([^)]*\))?\s+)?use\s[^;]*;//mgr;
  push @found, $1 while $rest =~ /\b((?:crate|super)(?:::\w+)+)/g;
  for my $path (@found) {
    my @path = split /::/, $path =~ s/\s//gr;
    my @at = @here;
    if ($path[0] eq 'crate') { @at = (); shift @path }
    elsif ($path[0] eq 'self') { shift @path }
    else { while (@path && $path[0] eq 'super') { pop @at; shift @path } }
    while (@path && $modules{ join '/', @at, $path[0] }) { push @at, shift @path }
    # Where the two paths part, one sibling imports the other.
    my $level = 0;
    $level++ while $level < @here && $level < @at && $here[$level] eq $at[$level];
    next if $level >= @here || $level >= @at;
    my $folder = join '/', @here[0 .. $level - 1];
    $edges{$folder}{ $here[$level] }{ $at[$level] } //= $file;
  }
}
for my $folder (sort keys %edges) {
  my $graph = $edges{$folder};
  my %done;
  my $walk;
  $walk = sub {
    my (@way) = @_;
    for my $next (sort keys %{ $graph->{ $way[-1] } // {} }) {
      my ($first) = grep { $way[$_] eq $next } 0 .. $#way;
      if (defined $first) {
        my @cycle = (@way[$first .. $#way], $next);
        my $name = join ' ', sort @way[$first .. $#way];
        next if $done{"cycle $name"}++;
        my @files = map { $graph->{ $cycle[$_] }{ $cycle[ $_ + 1 ] } } 0 .. $#cycle - 1;
        fail 'router/src/' . ($folder ? "$folder/" : '') . ': import cycle ' . join(' -> ', @cycle) . ' (' . join(', ', @files) . ')';
      } elsif (!$done{$next}) { $walk->(@way, $next) }
    }
    $done{ $way[-1] } = 1;
  };
  $walk->($_) for sort keys %$graph;
}

if (@problems) {
  print STDERR "tidy: $_\n" for @problems;
  printf STDERR "tidy: %d problems\n", scalar @problems;
  exit 1;
}
printf "tidy: %d files, %d metrics and %d pages are in order\n", scalar keys %source, $declared, scalar @pages;
