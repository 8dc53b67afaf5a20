# Answers one line for each line of its input: what Perl's pack and unpack make of it.
#
#   p <template> <value>...   a value is b and its bytes, or n and a big-endian double
#   u <template> <bytes>
#
# All of them in hexadecimal, after a letter or a dot that keeps them from being empty. An answer is
# "=" and the bytes; "=" and the values, each with its kind before it (d a double, i an integer, s a
# string); "?" and the same where Perl read malformed UTF-8 with a warning; "!" and a message.
use strict;
use warnings 'utf8';
no warnings qw(surrogate nonchar non_unicode);
use B ();

my $warned;
$SIG{__WARN__} = sub { $warned = 1 if $_[0] =~ /Malformed UTF-8/ };
$| = 0;

sub from_hex { CORE::pack("H*", substr($_[0], 1)) }

sub value {
    my ($text) = @_;
    my $bytes = from_hex($text);
    return $text =~ /^n/ ? CORE::unpack("d>", $bytes) : $bytes;
}

sub kind {
    my ($value) = @_;
    my $flags = B::svref_2object(\$value)->FLAGS;
    return "s" . CORE::unpack("H*", $value) if $flags & B::SVf_POK;
    return "i$value" if $flags & B::SVf_IOK;
    return "d" . CORE::unpack("H*", CORE::pack("d>", $value));
}

while (my $line = <STDIN>) {
    chomp $line;
    my ($action, $template, @rest) = split / /, $line;
    $template = from_hex($template);
    $warned = 0;
    my $answer = eval {
        if ($action eq "p") {
            my $packed = pack($template, map { value($_) } @rest);
            utf8::encode($packed) if utf8::is_utf8($packed);
            CORE::unpack("H*", $packed);
        } else {
            join " ", map { kind($_) } unpack($template, from_hex($rest[0]));
        }
    };
    my $message = $@;
    $message =~ s/[\r\n]+/ /g;
    print defined $answer ? ($warned ? "?" : "=") . $answer : "!$message", "\n";
}
