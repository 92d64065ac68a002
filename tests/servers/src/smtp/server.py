"""A mail server for tests. Its folder (the first argument) says how it behaves, and gets what it was given.

behaviour   read at every command: {"name": …, "code": …, "seconds": …, "recipient": …}
mails/N     each mail that was accepted, one file, complete
attempts    a byte for every mail that somebody began to give it
"""

import asyncio
import json
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Handler:
    def __init__(self, folder):
        self.folder = folder
        self.mails = os.path.join(folder, "mails")
        self.next = len(os.listdir(self.mails))

    def behaviour(self):
        with open(os.path.join(self.folder, "behaviour"), encoding="utf-8") as file:
            return json.load(file)

    async def handle_MAIL(self, server, session, envelope, address, options):
        with open(os.path.join(self.folder, "attempts"), "ab") as attempts:
            attempts.write(b".")
        if self.behaviour()["name"] == "closing":
            await server.push("421 4.3.2 closing")
            server.transport.close()
            return "421 4.3.2 closing"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        behaviour = self.behaviour()
        if behaviour["name"] == "refuse_recipients" and behaviour["recipient"] in address:
            return refusal(behaviour["code"])
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        behaviour = self.behaviour()
        if behaviour["name"] == "refuse_messages":
            return refusal(behaviour["code"])
        if behaviour["name"] == "slow":
            # Whoever gives up meanwhile has not given it.
            await asyncio.sleep(behaviour["seconds"])
        self.keep(server, session, envelope)
        if behaviour["name"] == "drop_after_data":
            server.transport.abort()
        return "250 2.0.0 kept"

    def keep(self, server, session, envelope):
        login = session.auth_data
        mail = {
            "from": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "text": envelope.content.decode("utf-8", "replace").replace("\r\n", "\n"),
            "user": login.login.decode() if login else None,
            "encrypted": server.transport.get_extra_info("ssl_object") is not None,
        }
        self.next += 1
        path = os.path.join(self.mails, f"{self.next:08}")
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(mail, file)
        os.rename(path + ".part", path)


def refusal(code):
    return f"{code} {code // 100}.0.0 not now" if code < 500 else f"{code} {code // 100}.1.1 not here"


async def serve(folder):
    with open(os.path.join(folder, "options"), encoding="utf-8") as file:
        options = json.load(file)
    handler = Handler(folder)

    context = None
    if options["certificate"]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options["certificate"], options["key"])

    def authenticate(server, session, envelope, mechanism, login):
        known = isinstance(login, LoginPassword) and [login.login.decode(), login.password.decode()] == options["login"]
        return AuthResult(success=known, handled=False, auth_data=login if known else None)

    def connection():
        return SMTP(
            handler,
            hostname="localhost",
            ident="a mail server for tests",
            tls_context=context if options["tls"] == "starttls" else None,
            require_starttls=options["tls"] == "starttls",
            auth_required=options["login"] is not None,
            auth_require_tls=False,
            authenticator=authenticate,
            command_call_limit=None,
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(
        connection,
        "127.0.0.1",
        options["port"],
        reuse_address=True,
        ssl=context if options["tls"] == "implicit" else None,
    )
    await server.serve_forever()


asyncio.run(serve(sys.argv[1]))
