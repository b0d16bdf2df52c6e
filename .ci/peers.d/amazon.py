"""SQS and SNS as moto plays them: signatures and permissions are checked by botocore's own code, queues read by boto3."""

import json
import pathlib
import re
import subprocess
import tempfile
import urllib.request

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from common import HOSTILE, Place, Receiver, check, free_port, main, running, until, waits

REGION, ACCOUNT = "eu-west-1", "123456789012"
MAY_SEND = {"Effect": "Allow", "Action": ["sqs:SendMessage", "sns:Publish"], "Resource": "*"}
MAY_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}


class Amazon:
    """One with two users: an administrator, and one who may send; nobody else is heard."""

    def __init__(self):
        self.port, self.log = free_port(), tempfile.NamedTemporaryFile()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        words = ["moto_server", "-H", "127.0.0.1", "-p", str(self.port)]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5).status == 200
        except OSError:
            return False

    def client(self, service, key=("any", "any")):
        return boto3.client(
            service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=key[0], aws_secret_access_key=key[1]
        )

    def user(self, name, statement):
        iam = self.client("iam")
        iam.create_user(UserName=name)
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def furnish(self):
        if not until(self.is_ready):
            check("amazon: moto started", False, pathlib.Path(self.log.name).read_text())
        self.sender, admin = self.user("vigie", MAY_SEND), self.user("admin", MAY_ALL)
        self.sqs, self.sns = self.client("sqs", admin), self.client("sns", admin)
        self.checks(True)

    def checks(self, whether):
        """From now on every request is checked, or none."""
        count, text = b"0" if whether else b"inf", {"content-type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset-auth", count, text)).read()

    def queue(self, name, **attributes):
        return self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def taken(self, url):
        """All messages of a queue, which are then gone."""
        messages = []
        while more := self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"],
        ).get("Messages"):
            messages += more
        return messages

    def options(self, secret=None):
        return options(self.url, self.sender[0], secret or self.sender[1])


def options(url, key, secret):
    return f'endpoint: "{url}", region: {REGION}, access_key_id: "{key}", secret_access_key: "{secret}"'


def peers(messages):
    bodies = [json.loads(message["Body"]) for message in messages]
    return [body for body in bodies if body["rule"]["id"] == "peer"]


def queues(binary, amazon):
    url = f"{amazon.url}/{ACCOUNT}/alerts"
    place = Place(binary, f'  q: {{sqs: {{queue_url: "{url}", {amazon.options()}}}}}\n', events=3)
    status, said = place.run("run", "--once")
    check("sqs: no queue: the backlog is kept", waits(place, status), said)
    check("sqs: the queue is made", amazon.queue("alerts") == url, url)
    status, said = place.run("run", "--once", after="+6m")
    messages = amazon.taken(url)
    came = peers(messages)
    once = len({body["alert_id"] for body in came}) == len(came) == 3
    check("sqs: and all are delivered", status == 0 and once, (said, messages))
    check("sqs: all of the text", all(body["event"]["user_email"] == HOSTILE for body in came), came)

    ordered = amazon.queue("alerts.fifo", FifoQueue="true")
    place = Place(binary, f'  q: {{sqs: {{queue_url: "{ordered}", {amazon.options()}}}}}\n', events=3)
    status, said = place.run("run", "--once")
    messages = amazon.taken(ordered)
    keys = [message["Attributes"]["MessageDeduplicationId"] for message in messages]
    ids = [body["delivery_id"] for body in peers(messages)]
    check("sqs: a queue that keeps an order", status == 0 and sorted(keys) == sorted(ids) and len(ids) == 3, (said, messages))

    wrong = f'  q: {{sqs: {{queue_url: "{url}", {amazon.options("x" * 40)}}}}}\n'
    place = Place(binary, wrong, events=2)
    status, said = place.run("run", "--once", "-vv")
    check("sqs: a wrong key: the backlog is kept", waits(place, status) and not amazon.taken(url), said)
    shown = place.ledger()
    check("sqs: a wrong key: the ledger says so", "SignatureDoesNotMatch" in shown and "xxxx" not in shown + said, shown)
    place.configure(f'  q: {{sqs: {{queue_url: "{url}", {amazon.options()}}}}}\n')
    status, said = place.run("run", "--once", after="+6m")
    check("sqs: a wrong key: mended, all are delivered", status == 0 and len(peers(amazon.taken(url))) == 2, said)


def topics(binary, amazon):
    arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:alerts"
    # moto encodes a form anew before it checks the signature, and then checks another; `signatures` below checks ours.
    amazon.checks(False)
    place = Place(binary, f'  t: {{sns: {{topic_arn: "{arn}", {amazon.options()}}}}}\n', events=3)
    status, said = place.run("run", "--once")
    check("sns: no topic: the backlog is kept", waits(place, status), said)
    made = amazon.sns.create_topic(Name="alerts")["TopicArn"]
    queue = amazon.queue("subscriber")
    endpoint = amazon.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    amazon.sns.subscribe(TopicArn=made, Protocol="sqs", Endpoint=endpoint)
    status, said = place.run("run", "--once", after="+6m")
    envelopes = [json.loads(message["Body"]) for message in amazon.taken(queue)]
    came = peers([{"Body": envelope["Message"]} for envelope in envelopes])
    check("sns: it is made, and all are delivered", status == 0 and made == arn and len(came) == 3, (said, envelopes))
    check("sns: all of the text", all(body["event"]["user_email"] == HOSTILE for body in came), came)
    subjects = [envelope.get("Subject", "") for envelope in envelopes]
    check("sns: a subject of Amazon's form", all(re.fullmatch(r"[!-~][ -~]{0,99}|", one) for one in subjects), subjects)


def signatures(binary):
    """The bytes themselves, signed again by botocore."""
    key, secret = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    with Receiver() as receiver:
        own = options(receiver.url, key, secret)
        sinks = f'  t: {{sns: {{topic_arn: "arn:aws:sns:{REGION}:{ACCOUNT}:alerts", {own}}}}}\n'
        sinks += f'  q: {{sqs: {{queue_url: "{receiver.url}/{ACCOUNT}/alerts", {own}}}}}\n'
        Place(binary, sinks).run("run", "--once")

    def is_signed(request, service, secret=secret, more=""):
        parts = dict(part.split("=", 1) for part in request["headers"]["authorization"].split(" ", 1)[1].split(", "))
        headers = {name: request["headers"][name] for name in parts["SignedHeaders"].split(";")}
        again = AWSRequest("POST", receiver.url + request["path"], headers=headers, data=(request["body"] + more).encode())
        again.context["timestamp"] = request["headers"]["x-amz-date"]
        auth = SigV4Auth(Credentials(key, secret), service, REGION)
        return auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again) == parts["Signature"]

    for service, kind in [("sns", "application/x-www-form-urlencoded"), ("sqs", "application/x-amz-json-1.0")]:
        requests = [request for request in receiver.requests if request["headers"]["content-type"].startswith(kind)]
        check(f"{service}: botocore signs it the same", requests and all(is_signed(one, service) for one in requests), requests)
        check(f"{service}: not so with another key", not any(is_signed(one, service, "other") for one in requests))
        check(f"{service}: nor with other bytes", not any(is_signed(one, service, more=" ") for one in requests))


def run(binary):
    signatures(binary)
    amazon = Amazon()
    with running(amazon.start()):
        amazon.furnish()
        queues(binary, amazon)
        topics(binary, amazon)


main(run)
