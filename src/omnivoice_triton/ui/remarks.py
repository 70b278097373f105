"""What other parts of the package say in English, in the page's language: why a mode or a file can't be used.

A remark is matched as a whole against templates; one that no template knows stays in English. A test draws every
remark from where it is made, so that a change of words there is seen here.
"""

from __future__ import annotations

import re
from functools import cache

from omnivoice_triton.ui.tier_remarks import TIERS

_READABLE = "give a WAV, FLAC, OGG or MP3 file"
_READABLE_KO = "WAV, FLAC, OGG 또는 MP3 파일을 주세요"
_READABLE_ZH = "请提供 WAV、FLAC、OGG 或 MP3 文件"

_TEMPLATES: tuple[tuple[str, str, str], ...] = (
    # models.availability, doctor
    (
        "Triton is not installed: pip install triton (Linux) or triton-windows",
        "Triton이 설치되어 있지 않습니다: pip install triton(Linux) 또는 triton-windows",
        "未安装 Triton：pip install triton（Linux）或 triton-windows",
    ),
    (
        "it needs an NVIDIA GPU, not device {device}: use mode base",
        "{device} 장치가 아니라 NVIDIA GPU가 필요합니다: base 모드를 쓰세요",
        "需要 NVIDIA GPU，而不是设备 {device}：请用 base 模式",
    ),
    (
        "it needs an NVIDIA GPU ({why}): use mode base",
        "NVIDIA GPU가 필요합니다({why}): base 모드를 쓰세요",
        "需要 NVIDIA GPU（{why}）：请用 base 模式",
    ),
    ("this torch is built without CUDA", "이 torch는 CUDA 없이 빌드되었습니다", "此 torch 构建时未启用 CUDA"),
    (
        "torch finds no NVIDIA GPU or driver",
        "torch가 NVIDIA GPU나 드라이버를 찾지 못합니다",
        "torch 未找到 NVIDIA GPU 或驱动",
    ),
    (
        "the GPU's compute capability is {have}, the kernels need {want}: use mode base or faster",
        "GPU의 compute capability가 {have}인데 커널에는 {want}이(가) 필요합니다: base 또는 faster 모드를 쓰세요",
        "GPU 的计算能力为 {have}，内核需要 {want}：请用 base 或 faster 模式",
    ),
    (
        "cuda-bindings doesn't import ({error}): it comes with PyTorch's CUDA builds, or pip install cuda-bindings",
        "cuda-bindings를 불러올 수 없습니다({error}): PyTorch의 CUDA 빌드에 들어 있습니다. 아니면 pip install "
        "cuda-bindings",
        "无法导入 cuda-bindings（{error}）：PyTorch 的 CUDA 版本自带，或执行 pip install cuda-bindings",
    ),
    (
        "mode {mode} can't run here: {why}",
        "{mode} 모드는 여기서 실행할 수 없습니다: {why}",
        "{mode} 模式无法在此运行：{why}",
    ),
    (
        "in Triton's interpreter: for tests, no faster than base",
        "Triton 인터프리터로 실행: 시험용이며 base보다 빠르지 않습니다",
        "以 Triton 解释器运行：仅供测试，不比 base 快",
    ),
    (
        "by plain PyTorch operations: for tests, no faster than base",
        "일반 PyTorch 연산으로 실행: 시험용이며 base보다 빠르지 않습니다",
        "以普通 PyTorch 运算运行：仅供测试，不比 base 快",
    ),
    (
        "{name} can't be imported ({error}): install omnivoice-triton again, with torch and torchaudio of one version",
        "{name}을(를) 불러올 수 없습니다({error}): 같은 버전의 torch와 torchaudio로 omnivoice-triton을 다시 설치하세요",
        "无法导入 {name}（{error}）：请用同一版本的 torch 和 torchaudio 重新安装 omnivoice-triton",
    ),
    (
        "not on this machine yet: the first use downloads it",
        "아직 이 컴퓨터에 없습니다: 처음 쓸 때 내려받습니다",
        "本机尚无：首次使用时下载",
    ),
    # verify.samples
    (
        "Triton's interpreter takes minutes for a sentence",
        "Triton 인터프리터로는 한 문장에 몇 분이 걸립니다",
        "Triton 解释器说一句话要几分钟",
    ),
    ("not asked for", "요청하지 않음", "未请求"),
    # audio_files
    (
        f"can't read {{name}} as audio ({{detail}}): {_READABLE}",
        f"{{name}}을(를) 소리로 읽을 수 없습니다({{detail}}): {_READABLE_KO}",
        f"无法将 {{name}} 读作音频（{{detail}}）：{_READABLE_ZH}",
    ),
    (
        f"can't read {{name}} as audio: {_READABLE}",
        f"{{name}}을(를) 소리로 읽을 수 없습니다: {_READABLE_KO}",
        f"无法将 {{name}} 读作音频：{_READABLE_ZH}",
    ),
    (
        f"reference audio {{name}} is an empty file: {_READABLE}",
        f"녹음 {{name}}은(는) 빈 파일입니다: {_READABLE_KO}",
        f"录音 {{name}} 是空文件：{_READABLE_ZH}",
    ),
    (
        "{name} lasts {seconds} s: a reference needs 3 to 10 s of speech (at least 0.2 s)",
        "{name}의 길이는 {seconds}초입니다: 3~10초의 말이 필요합니다(최소 0.2초)",
        "{name} 长 {seconds} 秒：需要 3 到 10 秒的语音（至少 0.2 秒）",
    ),
    (
        "{name} holds NaN or infinite samples: record or convert it again",
        "{name}에 NaN 또는 무한대 값이 있습니다: 다시 녹음하거나 변환하세요",
        "{name} 含有 NaN 或无穷大的采样：请重新录制或转换",
    ),
    (
        "{name} is silent: a reference needs 3 to 10 s of speech",
        "{name}에 소리가 없습니다: 3~10초의 말이 필요합니다",
        "{name} 是静音：需要 3 到 10 秒的语音",
    ),
    # ui.files
    ("no JSON ({error})", "JSON이 아닙니다({error})", "不是 JSON（{error}）"),
    ("no object with a kind", "kind가 있는 객체가 아닙니다", "不是带有 kind 的对象"),
    (
        "no results, or no environment that they come from",
        "결과 또는 측정 환경이 없습니다",
        "没有结果，或没有其测量环境",
    ),
    (
        "damaged: {what} is missing or not of the kind it should be",
        "손상됨: {what}이(가) 없거나 형식이 다릅니다",
        "已损坏：{what} 缺失或类型不符",
    ),
    *TIERS,
)
_COLUMNS = {"ko": 1, "zh": 2}


def translated(code: str, text: str) -> str:
    """`text` in the language `code`, its parts too; as it is if no template knows it."""
    column = _COLUMNS.get(code)
    if column is None:
        return text
    for template in _TEMPLATES:
        if found := _pattern(template[0]).fullmatch(text):
            return template[column].format(**{key: translated(code, part) for key, part in found.groupdict().items()})
    return text


def templates() -> tuple[tuple[str, str, str], ...]:
    """All of them: English, Korean, Chinese."""
    return _TEMPLATES


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(f"(?P<{part}>.+?)" if number % 2 else re.escape(part) for number, part in enumerate(parts)), re.DOTALL
    )
