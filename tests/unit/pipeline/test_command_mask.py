# SPDX-License-Identifier: Apache-2.0
"""No secret of a command line is left, and nothing else is touched."""

import random

import pytest
from shell_records import command

from ecapture.pipeline.command_mask import mask_command
from ecapture.pipeline.redact import Redacted
from ecapture.shell_events import ShellCommand

SECRET = "s3cr3t-Wort"


@pytest.mark.parametrize(
    "text",
    [
        "mysql -u root -p{} shop",
        "mysqldump -p'{}' shop",
        "sshpass -p {} ssh host",
        "sshpass -p{} ssh host",
        "sudo -u root sshpass -p {} ssh host",
        "/usr/bin/sshpass -p {} ssh host",
        "curl -u admin:{} https://host/",
        "curl -uadmin:{} https://host/",
        "curl --user=admin:{} https://host/",
        "curl --user 'admin:{}' https://host/",
        "curl -H 'Authorization: Bearer {}0123456789' https://host/",
        "curl https://admin:{}@host/path",
        "curl 'https://host/?access_token={}'",
        "wget --password={} https://host/",
        "wget --password {} https://host/",
        "PGPASSWORD={} psql -h db",
        "export AWS_SECRET_ACCESS_KEY={}",
        "DB_PASSWORD='{}' ./run",
        "docker login -u me -p {} registry",
        "echo {} | sudo -S id",
        "printf '%s' {} | docker login --password-stdin",
        "echo {} | passwd --stdin joe",
        "redis-cli -a {} ping",
        "ldapsearch -D cn=admin -w {} -b dc=x",
        "openssl rsa -passin pass:{} -in key.pem",
        "htpasswd -b file joe {}",
        "zip -P {} out.zip in",
        "7z a -p{} out.7z in",
        "smbclient -U joe%{} //host/share",
        "tool --api-key {} run",
        "tool --token={} run",
        "cd /x && mysql -p{} || true",
        "if true; then sshpass -p {} x; fi",
        "for i in 1 2\ndo\n  PASSWORD={} run $i\ndone",
        """cat <<X
password: {}
X""",
    ],
)
def test_a_secret_is_replaced(text):
    masked = mask_command(text.format(SECRET))
    assert SECRET not in masked
    assert "REDACTED" in masked
    begin, _, end = text.partition("{}")
    assert masked.startswith(begin.rstrip("'%s "))
    if end.strip("'") and "0123" not in end:
        assert masked.endswith(end.strip("'"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ls -la /tmp",
        "git commit -m 'password handling'",
        "mysql -u root -p shop",
        "ssh -p 2222 host",
        "mkdir -p a/b",
        "echo token | grep token",
        "grep -w word file",
        "cp -a from to",
        "curl -u https://host/",
        "for p in 1 2; do echo $p; done",
        "echo 'unclosed",
        'echo "unclosed \\',
        "| | ; && (",
        "podman ps -a",
        "env -u X printenv",
    ],
)
def test_what_is_no_secret_is_left_alone(text):
    assert mask_command(text) == text


def test_what_was_typed_is_masked_as_well():
    (found,) = Redacted().feed(
        [command(f"sshpass -p {SECRET} x", typed=f"!! -p {SECRET} PASSWORD={SECRET}")]
    )
    assert isinstance(found, ShellCommand)
    assert SECRET not in found.text
    assert f"PASSWORD={SECRET}" not in found.typed
    unchanged = command()
    assert Redacted().feed([unchanged])[0] is unchanged


def test_any_text_is_masked_without_error():
    chosen = random.Random(7)
    alphabet = "ab -p=:'\"\\|;&()\n\x00é\ud800%@/u"
    for _ in range(3000):
        mask_command("".join(chosen.choices(alphabet, k=chosen.randrange(60))))


def test_a_hostile_line_takes_no_time():
    for text in (
        "'" * 65536,
        '"\\' * 32768,
        "a" * 65536,
        "-p " * 20000,
        "echo x|" * 9000,
        "(" * 65536,
    ):
        mask_command(text)
