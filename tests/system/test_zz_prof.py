import time, sys
from tests.system.test_crashes import POINTS, begun
import pytest
@pytest.mark.parametrize("n",[1,2])
def test_prof(scene,n):
    T=[time.time()]
    def lap(x): 
        T.append(time.time()); print(f"{x}: {T[-1]-T[-2]:.2f}", file=sys.stderr)
    p=POINTS["append applied, reply lost"]
    service, publication = begun(scene); lap("begun")
    cut = scene.cut_at(p.method,p.path,service.kill,nth=p.nth)
    publication.steadily(.6)
    service.start(); lap("start")
    service.wait_for("claimed") ; lap("claimed")
    scene.wait_for(cut); lap("cut")
    service.start(); service.wait_for("claimed"); lap("reclaimed")
    publication.pause(); publication.steadily(portion=40); publication.done(); lap("published")
    scene.settle(); lap("settled")
    scene.verify(); lap("verified")
    if n==2:
      for e in scene.proxy.exchanges: print(f"{e.at_s:.3f} {((e.ended_s or 0)-e.at_s)*1000:.0f}ms {e.method} {e.path.replace('/api/v1','')[:110]} {e.status}", file=sys.stderr)
