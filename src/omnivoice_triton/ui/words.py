"""Every text of the dashboard in English, Korean and Chinese."""

from __future__ import annotations

LANGUAGES = {"en": "English", "ko": "한국어", "zh": "中文"}

_TABLE: dict[str, tuple[str, str, str]] = {
    "title": ("OmniVoice on Triton", "OmniVoice on Triton", "OmniVoice on Triton"),
    "model": ("Model", "모델", "模型"),
    "model_help": (
        "Directory or hub id. Empty is $OMNIVOICE_TRITON_MODEL, or the packaged demo voice.",
        "디렉터리 또는 허브 ID. 비워 두면 $OMNIVOICE_TRITON_MODEL 또는 함께 설치된 데모 음성을 씁니다.",
        "目录或 hub ID。留空则使用 $OMNIVOICE_TRITON_MODEL 或随包附带的演示语音。",
    ),
    "results_folder": ("Folder of results", "결과 폴더", "结果文件夹"),
    "samples_folder": ("Folder of samples", "샘플 폴더", "样本文件夹"),
    "tab_overview": ("Overview", "개요", "概览"),
    "tab_inference": ("Side by side", "나란히 비교", "并排对比"),
    "tab_benchmarks": ("Benchmarks", "벤치마크", "基准测试"),
    "tab_verification": ("Verification", "검증", "验证"),
    "tab_samples": ("Samples", "샘플", "样本"),
    "noise": (
        "This model has random weights: what it says is noise. It is here to try everything without a download.",
        "이 모델의 가중치는 무작위라서 말소리 대신 잡음이 나옵니다. 다운로드 없이 모든 기능을 시험하기 위한 것입니다.",
        "该模型的权重是随机的，输出的是噪声，仅用于无需下载即可试用全部功能。",
    ),
    "demo_voice": (
        "This is the demo voice: small, robotic, and it knows some hundred words of English, Korean and Chinese. "
        "For a real voice give k2-fsa/OmniVoice as the model.",
        "이것은 데모 음성입니다. 작고 로봇 같으며 영어, 한국어, 중국어 단어 수백 개만 압니다. "
        "실제 목소리를 들으려면 모델에 k2-fsa/OmniVoice를 넣으세요.",
        "这是演示语音：模型很小，声音机械，只认识英语、韩语和汉语的几百个词。"
        "要听真实的声音，请在模型处填写 k2-fsa/OmniVoice。",
    ),
    "device": ("Device", "장치", "设备"),
    "weights": ("Weights", "가중치", "权重"),
    "auto_takes": ("`auto` takes", "`auto` 선택", "`auto` 选择"),
    "gpu_memory": ("GPU memory", "GPU 메모리", "显存"),
    "gpu_free": (
        "{free:.0f} of {all:.0f} GiB free",
        "{all:.0f} GiB 중 {free:.0f} GiB 사용 가능",
        "{all:.0f} GiB 中 {free:.0f} GiB 空闲",
    ),
    "examining": ("Looking at this machine …", "이 컴퓨터를 살펴보는 중 …", "正在检查本机 …"),
    "modes": ("Modes", "모드", "模式"),
    "mode": ("mode", "모드", "模式"),
    "what_it_is": ("what it is", "설명", "说明"),
    "runs_here": ("runs here", "실행 가능", "可运行"),
    "remark": ("remark", "비고", "备注"),
    "version": ("version", "버전", "版本"),
    "part": ("part", "구성 요소", "组件"),
    "mode_base": ("upstream's own PyTorch path", "업스트림의 PyTorch 경로 그대로", "上游自身的 PyTorch 路径"),
    "mode_triton": ("Triton kernels in the backbone", "백본에 Triton 커널", "主干网络使用 Triton 内核"),
    "mode_triton_sage": (
        "Triton kernels, INT8-QK attention",
        "Triton 커널, INT8-QK 어텐션",
        "Triton 内核，INT8-QK 注意力",
    ),
    "mode_faster": ("CUDA graph of upstream's forward", "업스트림 순전파의 CUDA 그래프", "上游前向计算的 CUDA 图"),
    "mode_hybrid": ("Triton kernels inside a CUDA graph", "CUDA 그래프 안의 Triton 커널", "CUDA 图中的 Triton 内核"),
    "mode_hybrid_sage": (
        "Triton kernels, INT8-QK attention, CUDA graph",
        "Triton 커널, INT8-QK 어텐션, CUDA 그래프",
        "Triton 内核，INT8-QK 注意力，CUDA 图",
    ),
    "mode_turbo": (
        "an engine of our own: packed rows, sampling on the device, step graphs",
        "자체 엔진: 묶은 행, 장치에서의 샘플링, 단계별 그래프",
        "自研引擎：打包的行、设备端采样、逐步图",
    ),
    "yes": ("yes", "예", "是"),
    "no": ("no", "아니요", "否"),
    "versions": ("Versions", "버전", "版本"),
    "machine": ("Machine", "시스템", "机器"),
    "text": ("Text", "텍스트", "文本"),
    "spoken_language": ("Spoken language", "말하는 언어", "语音语言"),
    "model_decides": ("let the model tell", "모델이 판단", "由模型判断"),
    "voice": ("Voice", "목소리", "音色"),
    "voice_auto": ("the model's choice", "모델이 선택", "模型选择"),
    "voice_clone": ("cloned", "복제", "克隆"),
    "voice_design": ("designed", "설계", "设计"),
    "instruct": ("Describe the voice", "목소리 설명", "描述音色"),
    "upload": ("A recording of 3 to 10 s", "3~10초 분량의 녹음", "3 到 10 秒的录音"),
    "microphone": ("or record one", "또는 직접 녹음", "或现场录制"),
    "transcript": ("What is said in it", "녹음에서 말한 내용", "录音内容"),
    "options": ("Options", "옵션", "选项"),
    "steps": ("Decoding steps", "디코딩 단계", "解码步数"),
    "guidance": ("Guidance", "가이던스", "引导强度"),
    "seed": ("Seed", "시드", "随机种子"),
    "speed": ("Speed", "속도", "语速"),
    "seconds": ("Seconds (0: estimated)", "길이(초, 0: 자동)", "时长（秒，0 为自动）"),
    "temperature": ("Position temperature", "위치 온도", "位置温度"),
    "say_it": ("Say it", "말하기", "合成"),
    "choose_modes": ("Choose at least one mode.", "모드를 하나 이상 고르세요.", "请至少选择一个模式。"),
    "give_text": ("Give a text.", "텍스트를 입력하세요.", "请输入文本。"),
    "give_reference": (
        "Upload or record a reference for the cloned voice.",
        "복제할 목소리의 녹음을 올리거나 녹음하세요.",
        "请上传或录制要克隆的声音。",
    ),
    "give_transcript": (
        "Write what is said in the recording.",
        "녹음에서 말한 내용을 적어 주세요.",
        "请写出录音的内容。",
    ),
    "give_instruct": ("Describe the voice.", "목소리를 설명해 주세요.", "请描述音色。"),
    "reference_good": (
        "{name}: {seconds:.1f} s at {rate} Hz",
        "{name}: {seconds:.1f}초, {rate} Hz",
        "{name}：{seconds:.1f} 秒，{rate} Hz",
    ),
    "no_voice_in_it": (
        "No voice can be taken from {name}: give another recording.",
        "{name}에서 목소리를 가져올 수 없습니다. 다른 녹음을 주세요.",
        "无法从 {name} 中提取音色：请换一个录音。",
    ),
    "upload_wins": (
        "There are a file and a recording: the file is taken.",
        "파일과 녹음이 모두 있습니다. 파일을 씁니다.",
        "同时有文件和录音：将使用文件。",
    ),
    "cannot_run": (
        "Can't run here: {modes} ({why})",
        "여기서 실행할 수 없음: {modes} ({why})",
        "无法在此运行：{modes}（{why}）",
    ),
    "same_noise": (
        "turbo draws upstream's noise, so that tokens can be compared",
        "토큰을 비교할 수 있도록 turbo가 업스트림의 노이즈를 씁니다",
        "turbo 使用上游的噪声，以便比较 token",
    ),
    "same_noise_help": (
        "Elsewhere turbo draws noise of its own, which gives other tokens. Time and memory shown here include "
        "upstream's draws.",
        "다른 곳에서 turbo는 자체 노이즈를 쓰며 토큰이 달라집니다. 여기에 표시된 시간과 메모리에는 업스트림 노이즈 "
        "생성이 포함됩니다.",
        "在别处 turbo 使用自有噪声，得到的 token 不同。此处显示的耗时和显存包含上游噪声的生成。",
    ),
    "tab_broke": (
        "This tab failed: {why} (the terminal has the whole message)",
        "이 탭에서 오류가 났습니다: {why} (전체 메시지는 터미널에 있습니다)",
        "此标签页出错：{why}（完整信息见终端）",
    ),
    "interrupted": (
        "A change on the page ended the run before it was done: start it again, and wait for it.",
        "페이지의 다른 조작 때문에 실행이 끝나기 전에 중단되었습니다. 다시 시작하고 끝날 때까지 기다려 주세요.",
        "页面上的其他操作在运行完成前将其中断：请重新开始并等待其完成。",
    ),
    "settings_changed": (
        "Said before the settings above were changed: {text}",
        "위 설정을 바꾸기 전에 말한 것입니다: {text}",
        "以下是更改上方设置之前合成的：{text}",
    ),
    "busy": ("another session is speaking …", "다른 세션이 말하는 중 …", "另一个会话正在合成 …"),
    "waiting": ("waits for its turn", "차례를 기다리는 중", "等待中"),
    "loading": ("loading {mode} …", "{mode} 불러오는 중 …", "正在加载 {mode} …"),
    "step_of": (
        "step {done} of {total} · {seconds:.1f} s · {rate:.1f} steps/s",
        "{total}단계 중 {done}단계 · {seconds:.1f}초 · 초당 {rate:.1f}단계",
        "第 {done}/{total} 步 · {seconds:.1f} 秒 · 每秒 {rate:.1f} 步",
    ),
    "mode_broke": (
        "{mode} failed: {why} (the terminal has the whole message)",
        "{mode} 실패: {why} (전체 메시지는 터미널에 있습니다)",
        "{mode} 失败：{why}（完整信息见终端）",
    ),
    "time": ("time", "시간", "耗时"),
    "speed_x": ("times real time", "실시간 배속", "实时倍数"),
    "audio_seconds": ("audio", "음성 길이", "音频时长"),
    "vram": (
        "peak VRAM, all loaded modes",
        "최대 VRAM(불러온 모든 모드)",
        "峰值显存（所有已加载模式）",
    ),
    "tokens_as": ("tokens equal to {mode}", "{mode}와(과) 같은 토큰", "与 {mode} 相同的 token"),
    "tokens_help": (
        "Share of audio tokens that are the same, with the same text, seed and voice. Other rounding can tip a choice, "
        "and what follows it: fewer equal tokens are another reading, not a worse one. - where modes draw other noise.",
        "같은 텍스트, 시드, 목소리일 때 같은 오디오 토큰의 비율입니다. 반올림 차이로 선택이 바뀌면 그 뒤도 바뀝니다. "
        "낮은 비율은 다르게 읽었다는 뜻이지 더 나쁘다는 뜻은 아닙니다. 노이즈가 다르면 -로 표시합니다.",
        "在文本、随机种子和音色相同时，相同音频 token 的比例。舍入差异可能改变某个选择及其后续：比例低表示读法不同，"
        "并不表示更差。噪声不同时显示 -。",
    ),
    "first_call": (
        "First call: it follows the loading of the model, or captured graphs for this length. Say it again for warm "
        "figures.",
        "첫 호출: 모델을 불러온 직후이거나 이 길이의 그래프를 이번에 캡처했습니다. 예열 후 수치는 다시 한 번 실행해 "
        "확인하세요.",
        "首次调用：刚加载模型，或刚为此长度捕获了图。再运行一次可得到预热后的数据。",
    ),
    "waveform": ("waveform", "파형", "波形"),
    "spectrogram": ("spectrogram", "스펙트로그램", "频谱图"),
    "result_files": ("Result files", "결과 파일", "结果文件"),
    "add_results": ("Add results of your own", "내 결과 추가", "添加自己的结果"),
    "no_results": (
        "No result files found. `omnivoice-triton bench speed --json FILE` writes one; upload it here, or name its "
        "folder in the sidebar.",
        "결과 파일이 없습니다. `omnivoice-triton bench speed --json FILE`로 만들어 여기에 올리거나 사이드바에 폴더를 "
        "적으세요.",
        "未找到结果文件。可用 `omnivoice-triton bench speed --json FILE` 生成后在此上传，或在侧边栏填写其文件夹。",
    ),
    "bad_results": (
        "{name} can't be used as results: {why}",
        "{name}을(를) 결과로 쓸 수 없습니다: {why}",
        "{name} 不能用作结果：{why}",
    ),
    "precision": ("Precision", "정밀도", "精度"),
    "clock": ("Clock", "측정 방식", "计时方式"),
    "figures": ("Figures", "수치", "数据"),
    "figure": ("Figure", "수치", "指标"),
    "cases": ("Cases", "사례", "用例"),
    "kernels": ("Kernels", "커널", "内核"),
    "rows": ("rows", "행", "行数"),
    "batch": ("texts a call", "호출당 텍스트 수", "每次调用的文本数"),
    "compare_devices": (
        "Several files of a kind are drawn in one chart: colours are modes, patterns are files.",
        "같은 종류의 여러 파일은 한 차트에 그립니다. 색은 모드, 무늬는 파일입니다.",
        "同类的多个文件画在同一图中：颜色代表模式，图案代表文件。",
    ),
    "clock_help": (
        "do_bench: Triton's own clock. graph: in a CUDA graph, data in the L2 cache. graph_cold: the same, data not in "
        "the cache.",
        "do_bench: Triton의 측정. graph: CUDA 그래프 안, 데이터가 L2 캐시에 있음. graph_cold: 같지만 데이터가 캐시에 "
        "없음.",
        "do_bench：Triton 自带计时。graph：在 CUDA 图中，数据在 L2 缓存里。graph_cold：同上，但数据不在缓存里。",
    ),
    "metric_median_ms": ("median milliseconds, p5 to p95", "중앙값(밀리초), p5~p95", "中位毫秒数，p5 至 p95"),
    "metric_speed_x": ("times real time", "실시간 배속", "实时倍数"),
    "metric_rtf": ("real-time factor (time / audio)", "실시간 계수(시간/음성)", "实时率（耗时/音频）"),
    "metric_ratio_to_base": ("time over base's", "base 대비 시간", "相对 base 的耗时"),
    "metric_peak_vram_mb": ("peak VRAM, MB", "최대 VRAM(MB)", "峰值显存（MB）"),
    "metric_joules_per_utterance": ("joules a text", "텍스트당 에너지(J)", "每条文本的能耗（J）"),
    "kernel_speedup": ("times PyTorch eager", "PyTorch eager 대비 배수", "相对 PyTorch eager 的倍数"),
    "kernel_speedup_over": ("times {other}", "{other} 대비 배수", "相对 {other} 的倍数"),
    "kernel_triton_gb_per_s": ("GB/s", "GB/s", "GB/s"),
    "kernel_percent_of_copy": ("% of the measured copy", "실측 복사 대비 %", "占实测拷贝的百分比"),
    "kernel_percent_of_matmul": (
        "% of the measured matrix product",
        "실측 행렬곱 대비 %",
        "占实测矩阵乘的百分比",
    ),
    "throughput": ("audio seconds per second", "초당 음성 길이(초)", "每秒生成的音频秒数"),
    "turbo_options": (
        "options: time over the exact engine's",
        "옵션: 정확한 엔진 대비 시간",
        "选项：相对精确引擎的耗时",
    ),
    "turbo_memory": ("peak VRAM, MB", "최대 VRAM(MB)", "峰值显存（MB）"),
    "turbo_startup": ("start to first audio, seconds", "시작부터 첫 음성까지(초)", "从启动到首段音频（秒）"),
    "at_rows": ("Rows in the bars", "막대의 행 수", "柱状图的行数"),
    "not_available": ("Not available: {what} ({why})", "쓸 수 없음: {what} ({why})", "不可用：{what}（{why}）"),
    "not_measured": ("Not measured: {what} ({why})", "측정하지 않음: {what} ({why})", "未测量：{what}（{why}）"),
    "nothing_in": ("{name}: nothing in {dtype}", "{name}: {dtype} 결과 없음", "{name}：没有 {dtype} 的结果"),
    "no_verdict": (
        "No verdict: see below what was not compared.",
        "판정하지 않았습니다. 비교하지 못한 것은 아래에 있습니다.",
        "无法判断：未比较的内容见下。",
    ),
    "nothing_to_draw": (
        "No chart for this kind: {kind}.",
        "이 종류의 차트는 없습니다: {kind}.",
        "该类型没有图表：{kind}。",
    ),
    "compare": ("Compare two files", "두 파일 비교", "比较两个文件"),
    "before": ("before", "이전", "之前"),
    "after": ("after", "이후", "之后"),
    "compare_run": ("Compare", "비교", "比较"),
    "regressions": ("Got worse", "나빠진 것", "变差的项目"),
    "rows_missing": (
        "{n} rows or timings of the first are missing in the second: {names}",
        "첫째 파일의 행이나 시간 {n}개가 둘째 파일에 없습니다: {names}",
        "第一个文件的 {n} 个行或计时在第二个文件中没有：{names}",
    ),
    "few_runs_drawn": (
        "{n} of {all} times are of fewer than five runs: no spread.",
        "시간 {all}개 중 {n}개는 다섯 번 미만으로 잰 값이라 편차를 알 수 없습니다.",
        "{all} 个时间中有 {n} 个运行不到五次：没有离散范围。",
    ),
    "few_runs": (
        "{n} of {all} timings are of too few runs for a verdict.",
        "시간 측정값 {all}개 중 {n}개는 측정 횟수가 적어 판정하지 않았습니다.",
        "{all} 个计时中有 {n} 个运行次数太少，不作判断。",
    ),
    "no_regressions": (
        "Nothing is slower beyond noise.",
        "잡음 이상으로 느려진 것이 없습니다.",
        "没有超出噪声的变慢。",
    ),
    "tiers": ("Tiers", "단계", "层级"),
    "tier_1": ("1 Kernels", "1 커널", "1 内核"),
    "tier_2": ("2 Model", "2 모델", "2 模型"),
    "tier_3": ("3 Speech", "3 음성", "3 语音"),
    "sentences": ("Sentences of tier 3", "3단계 문장 수", "第 3 层句子数"),
    "run_verification": ("Verify now", "지금 검증", "立即验证"),
    "verifying": ("Verifying …", "검증 중 …", "正在验证 …"),
    "no_report": (
        "No report yet: press the button.",
        "아직 보고서가 없습니다. 단추를 누르세요.",
        "还没有报告：请按按钮。",
    ),
    "checks": ("checks", "검사", "检查数"),
    "failed": ("failed", "실패 건수", "失败数"),
    "modes_run": ("Modes: {modes}", "모드: {modes}", "模式：{modes}"),
    "modes_not_run": ("Not run: {modes}", "실행하지 않음: {modes}", "未运行：{modes}"),
    "passed": ("PASS", "통과", "通过"),
    "not_passed": ("FAIL", "실패", "未通过"),
    "more_problems": ("and {count} more", "외 {count}건", "另有 {count} 项"),
    "notes": ("Notes", "참고", "说明"),
    "committed": ("Reports in {folder}", "{folder}의 보고서", "{folder} 中的报告"),
    "verify_broke": (
        "The verification could not run: {why}",
        "검증을 실행할 수 없습니다: {why}",
        "无法运行验证：{why}",
    ),
    "save_report": ("Save the report", "보고서 저장", "保存报告"),
    "no_samples": (
        "No samples found. `make generate-samples` says the same sentences in every mode (`omnivoice-triton samples "
        "--out DIR` outside of a checkout); name its folder in the sidebar.",
        "샘플이 없습니다. `make generate-samples`로 모든 모드의 같은 문장을 만들고(체크아웃 밖에서는 `omnivoice-triton "
        "samples --out DIR`) 사이드바에 폴더를 적으세요.",
        "未找到样本。`make generate-samples` 会用每个模式说同样的句子（不在源码目录中则用 `omnivoice-triton samples "
        "--out DIR`）；请在侧边栏填写其文件夹。",
    ),
    "no_samples_folder": (
        "No such folder: {folder}",
        "폴더가 없습니다: {folder}",
        "文件夹不存在：{folder}",
    ),
    "no_samples_there": (
        "{folder} has no metadata.json, hence no samples. `omnivoice-triton samples --out DIR` makes some.",
        "{folder}에 metadata.json이 없어 샘플이 없습니다. `omnivoice-triton samples --out DIR`로 만들 수 있습니다.",
        "{folder} 中没有 metadata.json，因此没有样本。可用 `omnivoice-triton samples --out DIR` 生成。",
    ),
    "samples_unusable": (
        "{folder}: metadata.json can't be read, or none of the files that it lists is there.",
        "{folder}: metadata.json을 읽을 수 없거나 그 안에 적힌 파일이 하나도 없습니다.",
        "{folder}：无法读取 metadata.json，或其中列出的文件都不存在。",
    ),
    "samples_lost": (
        "{count} of the listed samples are missing.",
        "목록에 있는 샘플 중 {count}개가 없습니다.",
        "列出的样本中有 {count} 个不存在。",
    ),
    "samples_made": (
        "Model {model}, {device}, {dtype}, {steps} steps, {date} {commit}",
        "모델 {model}, {device}, {dtype}, {steps}단계, {date} {commit}",
        "模型 {model}，{device}，{dtype}，{steps} 步，{date} {commit}",
    ),
    "samples_left_out": ("Not made: {modes}", "만들지 않음: {modes}", "未生成：{modes}"),
    "samples_reference": (
        "The recording that is cloned: {text}",
        "복제한 녹음: {text}",
        "被克隆的录音：{text}",
    ),
    "tokens_equal": (
        "tokens equal to base: {share:.1%}",
        "base와 같은 토큰: {share:.1%}",
        "与 base 相同的 token：{share:.1%}",
    ),
    "took": ("made in {milliseconds:.0f} ms", "생성 {milliseconds:.0f} ms", "生成用时 {milliseconds:.0f} 毫秒"),
    "lasts": ("{seconds:.2f} s of audio", "음성 {seconds:.2f}초", "音频 {seconds:.2f} 秒"),
    "all": ("all", "전체", "全部"),
}

SENTENCES = {
    "en": "Hello, welcome to the OmniVoice text-to-speech system.",
    "ko": "안녕하세요, 옴니보이스 음성 합성 시스템에 오신 것을 환영합니다.",
    "zh": "你好，欢迎使用全能语音合成系统。",
}
"""What the text box starts with."""
DEMO_SENTENCES = {
    "en": "The train leaves at twelve ten in August.",
    "ko": "기차는 한 시 십팔 분에 출발합니다.",
    "zh": "火车下午八点十六分出发。",
}
"""The same for the demo voice: of its vocabulary, but nothing that it was trained on."""


class Words:
    """The texts of one language.

    Args:
        code: a key of `LANGUAGES`.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self._column = list(LANGUAGES).index(code)

    def __call__(self, key: str, **values: object) -> str:
        """The text of `key`, with values filled in."""
        return _TABLE[key][self._column].format(**values)


def keys() -> tuple[str, ...]:
    """Every key there is."""
    return tuple(_TABLE)
