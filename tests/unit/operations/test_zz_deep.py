import collections, types, pathlib
from hypothesis import settings, HealthCheck
import importlib.util, sys, os
spec=importlib.util.spec_from_file_location('stt', pathlib.Path(__file__).with_name('test_logs_stateful.py'))
m=importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
from support.log_chain import Chain
class Fake:
    def __init__(self, root): self.chain=Chain(root)
    def backup(self, root, type):
        c=self.chain
        if not c.opened: type='full'
        got=c.take(type)
        return types.SimpleNamespace(type=got.type if got else '', changed=got is not None, bytes=c.last.new_bytes)
class Deep(m.Logs):
    def __init__(self):
        super().__init__(); self.engine=Fake(self.logs.root)
    @m.rule()
    def lose_state(self):
        if self.engine.chain.opened: self.engine.chain.lose_state()
    @m.precondition(lambda self: self.saved)
    @m.rule()
    def restore(self):
        assert self.engine.chain.lines()==collections.Counter(self.saved)
        assert self.engine.chain.lines_by_hand()==collections.Counter(self.saved)
Deep.TestCase.settings=settings(max_examples=int(os.environ.get('N','150')), stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
TestDeep=Deep.TestCase
