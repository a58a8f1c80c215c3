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
        # values that have signs in them
        r"mysql --password=a\;{} x",
        "mysql --password=a#{} x",
        'mysql --password=a"b {}" x',
        r"mysql --password='it'\''{}' x",
        r"export PASSWORD=a\ {}",
        'PASSWORD="it\'s {}" run',
        'docker run -e "PASSWORD=a {}" x',
        'export "PASSWORD=a {}"',
        'env "PASSWORD=a {}" run',
        "MYSQL_PWD={} mysql",
        "DB_PASS={} run",
        "SSHPASS={} sshpass -e ssh h",
        "REDISCLI_AUTH={} redis-cli",
        # options behind others in one word
        "curl -ku admin:{} https://host",
        "curl -sSkuadmin:{} https://host",
        "zip -rP {} o i",
        "unzip -oP{} o",
        "ldapsearch -xw {} -D x",
        # programs behind others
        "kubectl exec p -- mysql -uroot -p{}",
        "docker exec -i db mysql -uroot -p{}",
        "timeout 5 sshpass -p {} ssh h",
        "mysql docker -p{}",
        "helm registry login -u me -p {} h",
        # commands within words
        "x=`mysql -uroot -p{}`",
        "bash -c 'mysql -p{}'",
        "ssh h 'sshpass -p {} ssh g'",
        'echo "$(mysql -p{})"',
        """bash -c "ssh h 'curl -u a:{} x'\"""",
        # by place
        "htpasswd -nb joe {}",
        "htpasswd -bBC 10 file joe {}",
        "htpasswd -b file joe {} 2>/dev/null",
        "wpa_passphrase net {}",
        "set -gx API_TOKEN {}",
        "aws configure set aws_secret_access_key {}",
        "nmcli dev wifi connect net password {}",
        "curl -H X-Api-Key:{} h",
        "http h X-Api-Key:{}",
        # given to a program that reads it
        "echo {} | sudo -kS id",
        "echo {} | sudo --stdin id",
        "echo {} 2>&1 | sudo -S id",
        "if true; then echo {} | sudo -S id; fi",
        r"printf '{}\n{}\n' | passwd joe",
        "sudo -S id <<< {}",
        "kinit joe <<< '{}'",
        "chpasswd <<EOF\njoe:{}\nEOF\nls",
        "cat <<EOF | chpasswd\njoe:{}\nEOF\nls",
        # SQL
        """psql -c "ALTER USER joe PASSWORD '{}' LOGIN" db""",
        """mysql -e "CREATE USER joe IDENTIFIED BY '{}';" db""",
        """mysql -e "create user joe identified with x by '{}';" db""",
        r"mysql -e 'SET PASSWORD = PASSWORD(\"{}\")'",
        r"psql -c 'ALTER USER joe PASSWORD '\''{}'\'' LOGIN'",
        """psql -c "CREATE ROLE joe ENCRYPTED PASSWORD '{}' LOGIN" db""",
        # a name behind an option's
        "helm install x --set=auth.password={}",
        "terraform apply -var=db_password={}",
        "terraform apply -var='db_password=a {}'",
        "kubectl create secret generic x --from-literal=db={}",
    ],
)
def test_a_secret_is_replaced_wherever_it_stands(text):
    masked = mask_command(text.replace("{}", SECRET))
    assert SECRET not in masked
    assert "REDACTED" in masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mysql --password=x;ls", "mysql --password=REDACTED;ls"),
        ("mysql --password=x|cat", "mysql --password=REDACTED|cat"),
        ("(run --password=x)", "(run --password=REDACTED)"),
        ("$(run --token=x)", "$(run --token=REDACTED)"),
        ("x=`run --token=x`", "x=`run --token=REDACTED`"),
        ("PASSWORD=x;PASSWORD='y';ls", "PASSWORD=REDACTED;PASSWORD='REDACTED';ls"),
        ("PASSWORD=$(cat f) run", "PASSWORD=$(cat f) run"),
        ("PASSWORD=`cat f` run", "PASSWORD=`cat f` run"),
        ("mysql -psecret 2>/dev/null", "mysql -pREDACTED 2>/dev/null"),
        ("mysql -psecret shop", "mysql -pREDACTED shop"),
        ("mysql --password 2>/dev/null", "mysql --password 2>/dev/null"),
        ("tool --password >log", "tool --password >log"),
        ("sh -c 'PASSWORD=x run; ls'", "sh -c 'PASSWORD=REDACTED run; ls'"),
        ("curl -d 'password=x&user=joe' h", "curl -d 'password=REDACTED&user=joe' h"),
        ("htpasswd -bBC 10 f joe x", "htpasswd -bBC 10 f joe REDACTED"),
        ("chpasswd <<X\na:b\nX\nls", "chpasswd <<X\nREDACTED\nX\nls"),
        ("cat <<X\npassword=a;b\nX", "cat <<X\npassword=REDACTED\nX"),
        ("echo x 2>&1 | tee f", "echo x 2>&1 | tee f"),
        (
            "read -sp 'Password: ' X; rm -r /; ls 'a b'",
            "read -sp 'Password: ' X; rm -r /; ls 'a b'",
        ),
        ('echo "Token:"; run "x"', 'echo "Token:"; run "x"'),
        (
            """psql -c "ALTER USER joe PASSWORD 'x' VALID UNTIL 'y'" db""",
            """psql -c "ALTER USER joe PASSWORD 'REDACTED' VALID UNTIL 'y'" db""",
        ),
        ("a\vb --password=x", "a\vb --password=REDACTED"),
    ],
)
def test_what_stands_around_a_secret_is_left(text, masked):
    assert mask_command(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ls -la /tmp",
        "docker run -p 8080:80 nginx",
        "docker run --name mysql -p 3306:3306 mysql",
        "export OLDPWD=/x",
        "set -euo pipefail",
        "aws s3 ls",
        "curl https://host/zip -P /tmp",
        "echo a | sudo tee f",
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
        "sudo " * 13000,
        "chpasswd <<X;" * 5000,
        "a=\" ' " * 10000,
        "PASSWORD=x;" * 6000,
        "password '" * 6000,
        "identified with x by " * 3000,
        "'a: ' " * 10000,
    ):
        mask_command(text)
