"""Stands for an SMTP client: prints an e-mail, or appends it to the list of a test."""

from flask import current_app


def send(to: str, subject: str, text: str) -> None:
    outbox = current_app.config.get("OUTBOX")
    if outbox is None:
        print(f"To: {to}\nSubject: {subject}\n\n{text}\n")
    else:
        outbox.append((to, subject, text))
