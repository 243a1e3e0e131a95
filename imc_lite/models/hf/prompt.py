"""Questions as the model was trained to be asked: through the checkpoint's own chat template where it has one."""

from __future__ import annotations

from typing import Any

from imc_lite.models.hf.families import Family
from imc_lite.models.special_tokens import defuse


def render(processor: Any, family: Family, question: str, with_image: bool) -> str:
    """The whole prompt up to where the answer begins; with the processor's image token before the question."""
    question = defuse(question, control_tokens(processor))
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}] if with_image else []
        message = {"role": "user", "content": [*content, {"type": "text", "text": question}]}
        return processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    return family.prompt.format(image=image_token(processor) if with_image else "", question=question)


def image_token(processor: Any) -> str:
    """What stands for a picture in a prompt (Gemma3's processors know it as the token that begins one)."""
    return getattr(processor, "boi_token", None) or processor.image_token


def control_tokens(processor: Any) -> list[str]:
    """What a question must not hold, the longest first."""
    tokenizer = processor.tokenizer
    known = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    known |= {t for t in (*tokenizer.all_special_tokens, image_token(processor), processor.image_token) if t}
    return sorted((t for t in known if len(t) > 1), key=lambda t: (-len(t), t))
