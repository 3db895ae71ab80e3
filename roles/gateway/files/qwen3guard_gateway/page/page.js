// Copyright: guardops contributors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
"use strict";

const TEXTS = {
  en: {
    title: "Qwen3Guard audit", language: "Language", text: "Text to audit", more: "Response and API key",
    response: "A model's response to it (optional)", key: "API key, if one is needed", send: "Audit",
    recorded: "Every audit is recorded with its text.", wait: "Waiting…",
    safe: "Safe", controversial: "Controversial", unsafe: "Unsafe",
    categories: "Categories", none: "none", refusal: "Refusal", yes: "yes", no: "no", confidence: "Confidence",
    trace_id: "Trace id", time: "Time", backup_status: "Backup", pending: "not archived yet", model: "Model",
    not_recorded: "No record was written.", failed: "No verdict.", unreachable: "The gateway cannot be reached.",
    errors: {
      unauthorized: "An API key is needed, or this one is not known.", too_large: "The text is too long.",
      overloaded: "Too many questions at once. Try again in a moment.",
      log_unavailable: "No record can be written, so there is no answer.",
      upstream_down: "The model cannot be reached.", upstream_slow: "The model took too long.",
      upstream_garbled: "The model's answer cannot be understood.", upstream_refused: "The model refused the question.",
      empty_text: "There is no text.",
    },
    names: {},
  },
  zh: {
    title: "Qwen3Guard 内容审核", language: "语言", text: "待审核文本", more: "模型回复与 API 密钥",
    response: "模型对该文本的回复（可选）", key: "API 密钥（如需要）", send: "审核",
    recorded: "每次审核都会连同文本一并记录。", wait: "请稍候…",
    safe: "安全", controversial: "有争议", unsafe: "不安全",
    categories: "类别", none: "无", refusal: "是否拒答", yes: "是", no: "否", confidence: "置信度",
    trace_id: "追踪编号", time: "时间", backup_status: "备份", pending: "尚未归档", model: "模型",
    not_recorded: "未写入记录。", failed: "没有结论。", unreachable: "无法连接审核网关。",
    errors: {
      unauthorized: "需要 API 密钥，或密钥无效。", too_large: "文本过长。", overloaded: "请求过多，请稍后再试。",
      log_unavailable: "无法写入审计记录，因此不予答复。", upstream_down: "无法连接模型。", upstream_slow: "模型响应超时。",
      upstream_garbled: "无法理解模型的回答。", upstream_refused: "模型拒绝了该请求。", empty_text: "没有文本。",
    },
    names: {
      "Violent": "暴力", "Non-violent Illegal Acts": "非暴力违法行为", "Sexual Content or Sexual Acts": "色情内容",
      "PII": "个人隐私信息", "Suicide & Self-Harm": "自杀与自残", "Unethical Acts": "不道德行为",
      "Politically Sensitive Topics": "政治敏感话题", "Copyright Violation": "侵犯版权", "Jailbreak": "越狱",
    },
  },
};

const at = (id) => document.getElementById(id);
let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
let last = null; // what is shown: {answer} or {problem}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  at("language").value = language;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = TEXTS[language][element.dataset.text];
  }
  document.title = TEXTS[language].title;
  show();
}

function show() {
  const texts = TEXTS[language];
  at("result").hidden = !last?.answer;
  at("error").hidden = !last?.problem;
  if (last?.answer) showAnswer(last.answer, texts);
  if (last?.problem) showProblem(last.problem, texts);
}

function showAnswer(answer, texts) {
  at("result").dataset.verdict = answer.verdict;
  at("verdict").textContent = texts[answer.verdict];
  const names = answer.categories.map((name) => texts.names[name] ?? name);
  const facts = [
    ["categories", names.join(language === "zh" ? "、" : ", ") || texts.none],
    ["refusal", answer.refusal === null ? null : answer.refusal ? texts.yes : texts.no],
    ["confidence", answer.confidence === null ? null : `${(answer.confidence * 100).toFixed(1)} %`],
    ["trace_id", answer.trace_id ?? texts.not_recorded],
    ["time", new Date(answer.time).toLocaleString(language)],
    ["backup_status", texts[answer.backup_status] ?? answer.backup_status],
    ["model", answer.model],
  ];
  const rows = facts.filter(([, value]) => value !== null).flatMap(([name, value]) => {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = texts[name];
    detail.textContent = value; // never as HTML
    detail.id = `fact-${name}`;
    return [term, detail];
  });
  at("facts").replaceChildren(...rows);
}

function showProblem(problem, texts) {
  at("message").textContent = texts.errors[problem.code] ?? (problem.code ? texts.failed : texts.unreachable);
  const details = [problem.code, problem.message, problem.trace_id && `${texts.trace_id}: ${problem.trace_id}`];
  at("details").textContent = details.filter(Boolean).join(" · ");
}

async function ask() {
  const question = { text: at("text").value };
  if (at("response").value.trim()) question.response = at("response").value;
  const headers = { "Content-Type": "application/json" };
  if (at("key").value) headers["X-API-Key"] = at("key").value;
  try {
    const reply = await fetch("api/audit", { method: "POST", headers, body: JSON.stringify(question) });
    const answer = await reply.json();
    return reply.ok ? { answer } : { problem: { ...answer.error, trace_id: answer.trace_id } };
  } catch {
    return { problem: {} };
  }
}

at("language").addEventListener("change", (event) => {
  language = event.target.value;
  translate();
});

at("audit").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("send").disabled = true;
  at("send").textContent = TEXTS[language].wait;
  last = null;
  show();
  last = await ask();
  at("send").disabled = false;
  at("send").textContent = TEXTS[language].send;
  show();
});

translate();
